# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of the README: the example copied and filled in, the passphrase exported, and every command, in order."""

from __future__ import annotations

import json
import re
from pathlib import Path

from first_site import SERIALS, FirstSite

SERVERS = len(SERIALS)
REPORT_KEY = re.compile(r"SHA-256:? ([0-9a-f]{64})")


def test_setup(site: FirstSite) -> None:
    said = site.play("setup.yml")
    assert "failed=0" in said and "/srv/backup/repository" in site.on("backup1", "ls -d /srv/backup/repository")


def test_a_passphrase_that_is_forgotten_is_asked_for_by_its_name(site: FirstSite) -> None:
    """Before anything is frozen."""
    said = site.play("isb.yml", status=2, passphrase=False)
    assert "nothing was frozen" in said and "Set OPENISB_PASSPHRASE in the environment of ansible-playbook" in said


def test_preflight(site: FirstSite) -> None:
    site.play("preflight.yml")


def test_isb(site: FirstSite, tmp_path: Path) -> None:
    site.play("isb.yml", "-e", f"isb_report_path={tmp_path}/isb.json")
    report = json.loads((tmp_path / "isb.json").read_text())
    assert report["verdict"] == "application-consistent"


def test_verify(site: FirstSite) -> None:
    assert f"{SERVERS} savesets verified to the depth 'full'" in site.play("verify.yml")


def test_catalog(site: FirstSite, tmp_path: Path) -> None:
    site.play("catalog.yml", "-e", f"catalog_path={tmp_path}/catalog.json")
    assert {entry["server"] for entry in json.loads((tmp_path / "catalog.json").read_text())} == set(SERIALS)


def test_restore(site: FirstSite) -> None:
    to = ("-e", "restore_host=dr.example.org", "-e", "restore_folder=/srv/restored")
    site.play("restore.yml", "-e", "restore_server=m.example.org", *to)
    site.on("dr1", "test -s /srv/restored/m.example.org-m.img")


def test_the_program_that_needs_no_ansible(site: FirstSite) -> None:
    folder = "/srv/backup/repository"
    command = f"/var/lib/openisb/venv/bin/python {folder}/isb-saveset.pyz list"
    said = site.on("backup1", f"OPENISB_REPOSITORY={folder} OPENISB_PASSPHRASE={site.passphrase} {command}")
    assert all(f"{server}/" in said for server in SERIALS)


def test_drill(site: FirstSite) -> None:
    assert "PASSED" in site.play("drill.yml")


def test_idr_and_its_report(site: FirstSite, tmp_path: Path) -> None:
    said = site.play("idr.yml", "-e", f"idr_report_controller_folder={tmp_path}")
    assert "PASSED" in said
    (report,) = tmp_path.glob("idr-*.json")
    fingerprint = REPORT_KEY.search(said)
    assert fingerprint, said
    proven = ("-e", f"report={report}", "-e", f"key_fingerprint={fingerprint[1]}")
    assert "VALID for the key" in site.play("verify_report.yml", *proven)


def test_idr_that_is_kept_and_taken_down(site: FirstSite) -> None:
    site.play("idr.yml", "-e", "idr_keep=true", "-e", "idr_servers=fs1.example.org")
    assert "/srv/idr" in site.on("dr1", "cat /proc/mounts")
    site.play("idr.yml", "--tags", "teardown")
    assert "/srv/idr" not in site.on("dr1", "cat /proc/mounts")


def test_idr_of_this_moment(site: FirstSite) -> None:
    assert "PASSED" in site.play("idr_fresh.yml")


def test_standby(site: FirstSite) -> None:
    site.on("dr1", "mkdir -p /srv/standby")
    site.play("standby.yml")
    site.on("dr1", "test -s /srv/standby/fs1.example.org.img && test -s /srv/standby/fs2.example.org.img")


def test_prune(site: FirstSite) -> None:
    site.play("prune.yml", "--check")
    site.play("prune.yml")


def test_adopt(site: FirstSite) -> None:
    assert "The journal knows all savesets." in site.play("adopt.yml")


def test_recover(site: FirstSite) -> None:
    site.play("recover.yml")
