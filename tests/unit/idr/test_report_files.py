# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports as files: written by the role, signed, verified by the playbook and by OpenSSL alone."""

from __future__ import annotations

import copy
import hashlib
import html
import json
import re
import stat
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.page import NO_BREAK
from ansible_collections.openisb.backup.plugins.module_utils.journal.signature import SignatureProblem, signature_facts

from . import drill_records as drills
from .report_site import Site

GOOD, BAD, HOSTILE = (f"idr-20261128T210000Z-00000{number}" for number in (1, 2, 3))
EVIL = "</pre><script>alert('{{ 7 * 7 }}')</script><img src=x onerror=\"a\">&amp;%}'"
KEPT = {"mode", "source", "declared", "consistency_point", "controller"}
"""What has a form of its own, in which nothing evil can be said."""
TAGS = re.compile(
    "html|head|meta|title|style|body|svg|symbol|path|use|main|header|div|h[1-4]|p|dl|dt|dd|section|ol|ul|li|table|thead|"
    "tbody|tr|th|td|small|span|br|rect|line|details|summary|pre|code|a|q|footer"
)

pytestmark = pytest.mark.slow  # whole plays, about twenty of them


def evil(value: Any) -> Any:
    """The same with something evil in the place of every text."""
    if isinstance(value, dict):
        return {key: value[key] if key in KEPT else evil(value[key]) for key in value}
    if isinstance(value, list):
        return [evil(item) for item in value]
    return f"{value} {EVIL}" if isinstance(value, str) else value


def hostile() -> list[drills.Event]:
    """A drill in which every name, path and output is made to break out of the page."""
    events = [(at, event, evil(copy.deepcopy(data))) for at, event, data in drills.bad()]
    plan = events[0][2]
    plan["servers"] = {f"{name} {EVIL}": server for name, server in plan["servers"].items()}
    return events


class Page(HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, dummy in attrs}
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, dummy in attrs}

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data.replace(NO_BREAK, " ")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Site:
    """A site that has reported on three drills."""
    made = Site(tmp_path_factory.mktemp("site"), project_root)
    for drill, events in ((GOOD, drills.good()), (BAD, drills.bad()), (HOSTILE, hostile())):
        made.journalize(drill, events)
    done = made.report([GOOD, BAD, HOSTILE], idr_report_controller_folder="copies", idr_report_site="St. Anna & Sons")
    assert done.returncode == 0, done.stdout + done.stderr
    return made


def openssl(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """What OpenSSL says, which knows nothing of us."""
    return subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)


def openssl_verify(document: Path, signature: Path, key: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Verify a signature by the commands that the page names."""
    raw = folder / "signature.bin"
    assert openssl("base64", "-d", "-in", signature, "-out", raw).returncode == 0
    return openssl("pkeyutl", "-verify", "-pubin", "-inkey", key, "-rawin", "-in", document, "-sigfile", raw)


def test_everything_is_written_where_it_belongs(site: Site) -> None:
    endings = ("json", "json.sig", "html", "html.sig")
    names = sorted(f"{drill}.{ending}" for drill in (GOOD, BAD, HOSTILE) for ending in endings) + ["report-key.pub.pem"]
    assert sorted(path.name for path in site.reports.iterdir()) == names
    assert {stat.S_IMODE((site.reports / name).stat().st_mode) for name in names[:-1]} == {0o600}
    assert stat.S_IMODE(site.key.stat().st_mode) == 0o600
    copies = site.folder / "copies"
    assert sorted(path.name for path in copies.iterdir()) == names
    assert all((copies / name).read_bytes() == (site.reports / name).read_bytes() for name in names)


def test_keys_and_signatures_are_made_by_the_environment_of_the_backup_server(site: Site) -> None:
    """The private key, the public key and two signatures, each time that a report is written."""
    assert len(site.python_log.read_text().splitlines()) >= 4 * 3


def test_the_data_says_what_the_journal_says(site: Site) -> None:
    report = json.loads((site.reports / f"{GOOD}.json").read_text())
    assert (report["drill"], report["verdict"]) == (GOOD, "passed")
    assert {"ansible-core", "openisb.backup"} <= set(report["versions"])
    bad = json.loads((site.reports / f"{BAD}.json").read_text())
    assert (bad["verdict"], bad["exit_status"]) == ("failed", 2)
    last = json.loads(site.journal.read_text().splitlines()[bad["journal_seq"] - 1])
    assert bad["journal_head"] == last["hash"]


def test_the_page_says_it_too(site: Site) -> None:
    text = (site.reports / f"{GOOD}.html").read_text()
    report = json.loads((site.reports / f"{GOOD}.json").read_text())
    page = Page(text)
    assert page.open == []
    assert "Passed" in page.text and "Recovery drill report St. Anna & Sons" in page.text
    assert "Problems" not in page.text
    volumes = [volume for server in report["servers"].values() for volume in server["volumes"]]
    checks = [check for server in report["servers"].values() for check in server["checks"]] + report["group"]["checks"]
    shown = [report["journal_head"], "m.okafor on awx-3.example.org", "4 min 41 s", "within the target of 15 min"]
    shown += [volume[key] for volume in volumes for key in ("digest", "saveset", "run_id")]
    shown += [check["output"].strip() for check in checks] + [
        check["output_sha256"] for check in checks if check["output"]
    ]
    shown += [item["sha256"] for check in checks for item in check["files"]]
    assert [item for item in shown if item not in page.text] == []
    failed = Page((site.reports / f"{BAD}.html").read_text()).text
    problems = json.loads((site.reports / f"{BAD}.json").read_text())["problems"]
    assert len(problems) >= 6 and [problem for problem in problems if problem not in failed] == []


def test_the_page_needs_nothing_from_elsewhere(site: Site) -> None:
    text = (site.reports / f"{GOOD}.html").read_text()
    assert not re.search(r"https?://|@import|url\(|<script|<link|<img|<iframe|\bsrc=", text)
    assert set(re.findall(r'href="(.)', text)) == {"#"}


def test_nothing_that_is_told_becomes_part_of_the_page(site: Site) -> None:
    text = (site.reports / f"{HOSTILE}.html").read_text()
    page = Page(text)
    assert [tag for tag in page.tags if not TAGS.fullmatch(tag)] == []
    assert not {name for name in page.attributes if name.startswith("on") or name == "src"}
    assert page.open == []
    assert page.text.count(EVIL) > 100
    assert "49" not in re.findall(r"alert\('(.*?)'\)", html.unescape(text))
    assert json.loads((site.reports / f"{HOSTILE}.json").read_text())["who"]["user"].endswith(EVIL)


@pytest.mark.parametrize("name", [f"{GOOD}.html", f"{BAD}.json"])
def test_openssl_alone_verifies(site: Site, tmp_path: Path, name: str) -> None:
    document, key = site.reports / name, site.reports / "report-key.pub.pem"
    assert "Verified Successfully" in openssl_verify(document, Path(f"{document}.sig"), key, tmp_path).stdout
    changed = tmp_path / name
    changed.write_bytes(document.read_bytes().replace(b"failed", b"passed") + b"\n")
    assert openssl_verify(changed, Path(f"{document}.sig"), key, tmp_path).returncode != 0


def test_the_page_names_the_key_as_openssl_does(site: Site, tmp_path: Path) -> None:
    der = tmp_path / "key.der"
    openssl("pkey", "-pubin", "-in", site.reports / "report-key.pub.pem", "-outform", "DER", "-out", der)
    fingerprint = openssl("dgst", "-sha256", "-r", der).stdout.split()[0]
    assert len(fingerprint) == 64 and fingerprint in (site.reports / f"{GOOD}.html").read_text()


def test_the_key_is_made_once(site: Site) -> None:
    key, signature = site.key.read_bytes(), (site.reports / f"{GOOD}.json.sig").read_bytes()
    done = site.report([GOOD])
    assert done.returncode == 0, done.stdout
    assert (site.key.read_bytes(), (site.reports / f"{GOOD}.json.sig").read_bytes()) == (key, signature)


def test_a_key_that_cannot_be_read_is_not_replaced(tmp_path: Path, project_root: Path) -> None:
    made = Site(tmp_path, project_root)
    made.journalize(GOOD, drills.good())
    made.key.write_text("no key")
    done = made.report([GOOD])
    assert done.returncode != 0 and made.key.read_text() == "no key"


def test_the_exit_status_follows_the_verdict(tmp_path: Path, project_root: Path) -> None:
    made = Site(tmp_path, project_root)
    made.journalize(GOOD, drills.good())
    made.journalize(BAD, drills.bad())
    role = {"ansible.builtin.include_role": {"name": "openisb.backup.idr_report"}}
    for drill, status in ((GOOD, 0), (BAD, 2)):
        variables = {"idr_report_drill": drill, "idr_report_backup_server": "backup1"}
        done = made.play([{"name": "Report", **role, "vars": variables}])
        assert done.returncode == status, done.stdout
        assert (f"Drill {BAD} failed: " in done.stdout) is bool(status)
        assert (made.reports / f"{drill}.html.sig").exists()


def test_a_changed_journal_fails_the_drill(tmp_path: Path, project_root: Path) -> None:
    made = Site(tmp_path, project_root)
    made.journalize(GOOD, drills.good())
    made.journal.write_text(made.journal.read_text().replace("application-consistent", "application-consistent ", 1))
    assert made.report([GOOD]).returncode == 0
    report = json.loads((made.reports / f"{GOOD}.json").read_text())
    assert "the journal cannot be trusted: record 1 was changed after it was written" in report["problems"]


def test_an_unknown_drill_is_named(tmp_path: Path, project_root: Path) -> None:
    made = Site(tmp_path, project_root)
    done = made.report([GOOD])
    assert done.returncode == 2 and "the journal has no drill with this id" in done.stdout


def fingerprint(site: Site) -> str:
    """SHA-256 of the site's key, as the documentation tells to get it on the backup server."""
    der = subprocess.run(
        ["openssl", "pkey", "-in", site.key, "-pubout", "-outform", "DER"], capture_output=True, check=True
    )
    return hashlib.sha256(der.stdout).hexdigest()


def verify(site: Site, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run verify_report.yml as an auditor does, in the folder with the copies and without an inventory."""
    variables = [word for argument in arguments for word in ("-e", argument)]
    return site.playbook(site.project_root / "verify_report.yml", *variables)


def said(done: subprocess.CompletedProcess[str]) -> str:
    """What a playbook said, in one line."""
    return " ".join(done.stdout.split())


@pytest.mark.parametrize("ending", ["html", "json"])
def test_the_playbook_verifies(site: Site, ending: str) -> None:
    done = verify(site, f"report=copies/{BAD}.{ending}", f"key_fingerprint={fingerprint(site)}")
    assert done.returncode == 0, done.stdout
    assert f"VALID for the key of SHA-256 {fingerprint(site)}. " in said(done)
    assert f"FAILED: recovery drill {BAD}" in said(done)
    named = verify(site, f"report=copies/{BAD}.{ending}", f"public_key={site.reports}/report-key.pub.pem")
    assert named.returncode == 0 and f"VALID for the key of SHA-256 {fingerprint(site)}. " in said(named)


def test_the_playbook_verifies_on_a_host_that_has_the_report(site: Site) -> None:
    """The fingerprint as OpenSSL writes it."""
    inventory = ("-i", str(site.folder / "hosts.json"))
    printed = ":".join(re.findall("..", fingerprint(site).upper()))
    variables = ("-e", f"report={site.reports}/{GOOD}.json", "-e", "report_host=backup1")
    playbook = site.project_root / "verify_report.yml"
    done = site.playbook(playbook, *inventory, *variables, "-e", f"key_fingerprint={printed}")
    assert done.returncode == 0 and f"PASSED: recovery drill {GOOD}" in said(done), done.stdout


def test_the_key_beside_a_report_proves_nothing(site: Site, tmp_path: Path) -> None:
    """Somebody has made up a report, signed it with a key of his own, and put that beside it."""
    forged = tmp_path / f"{BAD}.json"
    forged.write_text((site.reports / f"{BAD}.json").read_text().replace('"failed"', '"passed"'))
    openssl("genpkey", "-algorithm", "ED25519", "-out", tmp_path / "own.pem")
    openssl("pkey", "-in", tmp_path / "own.pem", "-pubout", "-out", tmp_path / "report-key.pub.pem")
    raw = tmp_path / "raw"
    openssl("pkeyutl", "-sign", "-inkey", tmp_path / "own.pem", "-rawin", "-in", forged, "-out", raw)
    openssl("base64", "-in", raw, "-out", f"{forged}.sig")
    for said_of_key in ([], ["key_fingerprint="], ["key_fingerprint=1234"], [f"key_fingerprint={'z' * 64}"]):
        done = verify(site, f"report={forged}", *said_of_key)
        assert done.returncode == 2 and "VALID" not in done.stdout, done.stdout
        assert "Name the key that the report must be signed with" in said(done) and "setup.yml" in said(done)
    done = verify(site, f"report={forged}", f"key_fingerprint={fingerprint(site)}")
    assert done.returncode == 2 and f"and you named {fingerprint(site)}" in said(done), done.stdout
    done = verify(site, f"report={forged}", f"public_key={site.reports}/report-key.pub.pem")
    assert done.returncode == 2 and "NOT VALID" in done.stdout


def test_the_key_is_shown_where_a_report_is_made(site: Site) -> None:
    done = site.report([GOOD])
    assert f"Reports of backup1 are signed with the key of SHA-256 {fingerprint(site)}" in said(done)


def test_a_changed_report_is_not_valid(site: Site, tmp_path: Path) -> None:
    for name in (f"{BAD}.html", f"{BAD}.html.sig", "report-key.pub.pem"):
        (tmp_path / name).write_bytes((site.reports / name).read_bytes())
    text = (tmp_path / f"{BAD}.html").read_text()
    (tmp_path / f"{BAD}.html").write_text(text.replace("Failed", "Passed", 1))
    done = verify(site, f"report={tmp_path}/{BAD}.html", f"key_fingerprint={fingerprint(site)}")
    assert (
        done.returncode == 2 and "NOT VALID. " in done.stdout and "VALID. " not in done.stdout.replace("NOT VALID", "")
    )


def test_another_key_is_not_valid(site: Site, tmp_path: Path) -> None:
    openssl("genpkey", "-algorithm", "ED25519", "-out", tmp_path / "key.pem")
    openssl("pkey", "-in", tmp_path / "key.pem", "-pubout", "-out", tmp_path / "pub.pem")
    done = verify(site, f"report=copies/{GOOD}.html", f"public_key={tmp_path}/pub.pem")
    assert done.returncode == 2 and "NOT VALID" in done.stdout


@pytest.mark.parametrize(("content", "told"), [("", "cannot be read"), ("rsa", "not an Ed25519 key")])
def test_what_is_no_key_is_told(site: Site, tmp_path: Path, content: str, told: str) -> None:
    key = tmp_path / "pub.pem"
    key.write_text(content)
    if content:
        openssl("genpkey", "-algorithm", "RSA", "-out", tmp_path / "key.pem")
        openssl("pkey", "-in", tmp_path / "key.pem", "-pubout", "-out", key)
    with pytest.raises(SignatureProblem, match=told):
        signature_facts(b"x", (site.reports / f"{GOOD}.html.sig").read_bytes(), key.read_bytes())


@pytest.mark.parametrize(("content", "told"), [("*", "not base64"), ("AAAA", "has 3 bytes instead of 64")])
def test_what_is_no_signature_is_told(site: Site, tmp_path: Path, content: str, told: str) -> None:
    with pytest.raises(SignatureProblem, match=told):
        signature_facts(b"x", content.encode(), (site.reports / "report-key.pub.pem").read_bytes())


def test_the_playbook_says_what_cannot_be_used(site: Site, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("x")
    (tmp_path / "report.html.sig").write_text("AAAA")
    done = verify(site, f"report={tmp_path}/report.html", f"public_key={site.reports}/report-key.pub.pem")
    assert done.returncode == 2 and "has 3 bytes instead of 64: fetch the file" in said(done), done.stdout


def test_it_must_be_said_which_report(site: Site) -> None:
    done = verify(site)
    assert done.returncode == 2 and "Name the report with -e report=PATH" in said(done)
