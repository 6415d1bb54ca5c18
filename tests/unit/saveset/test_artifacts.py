# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks as AWX starts them, with nothing of the project's ansible.cfg: what is shown, and what is handed on."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import ansible_runner
import pytest
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import Journal, chain_problems

from .conftest import KIB, MIB, Lab, MakeImage, noise

pytestmark = pytest.mark.slow
RUN = "isb-20260301T120000Z-00000{}"
COLOUR = re.compile(r"\x1b\[[0-9;]*m|\r")
VOLUME = {"name": "m", "serial": "600a098000000011", "mount": "/srv/m"}
Job = t.Callable[..., tuple[int, str, t.Any, set[str]]]
PREFLIGHT = "Nothing was started and nothing was frozen."


def refusals(lab: Lab) -> list[list[str]]:
    """The problems of each run that the journal says was refused; it says nothing else."""
    records = Journal(f"{lab.folder}/state/journal/runs.jsonl").records()
    assert {record["event"] for record in records} <= {"refused"} and chain_problems(records) == []
    return [record["data"]["problems"] for record in records]


@pytest.fixture
def job(lab: Lab, make_image: MakeImage, project_root: Path) -> Job:
    """Runs a playbook with variables; its exit status, output, result as it is handed on, and kinds of events."""
    lab.backup(make_image("i1", MIB, [(0, noise(300 * KIB, 1))]), run_id=RUN.format(1))
    lab.backup(make_image("i2", MIB, [(0, noise(300 * KIB, 2))]), run_id=RUN.format(2))
    server = {"isb_drivers": [{"name": "command", "freeze": ["x"], "thaw": ["y"]}], "isb_volumes": [VOLUME]}
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "repository_passphrase": "correct horse",
        "repository_path": str(lab.path),
        "repository_python": sys.executable,
        "openisb_state_dir": f"{lab.folder}/state",
        "openisb_run_dir": f"{lab.folder}/run",
        "isb_without_journal": True,  # no run made the savesets
    }
    groups = {"storage_hosts": "storage1", "listeners": "backup1", "backup_servers": "backup1"}
    children = {group: {"hosts": {name: {}}} for group, name in groups.items()}
    children["file_servers"] = {"hosts": {"fs1": server}}
    (lab.folder / "hosts.json").write_text(json.dumps({"all": {"vars": variables, "children": children}}))
    (lab.folder / "ansible.cfg").touch()
    private = lab.folder / "runner"
    (private / "project").mkdir(parents=True)

    def run(name: str, *options: str, **extra: t.Any) -> tuple[int, str, t.Any, set[str]]:
        playbook = [{"ansible.builtin.import_playbook": f"openisb.backup.{name}"}]
        (private / "project" / "job.yml").write_text(json.dumps(playbook))
        done = ansible_runner.run(
            private_data_dir=str(private),
            playbook="job.yml",
            cmdline=" ".join(["-i", f"{lab.folder}/hosts.json", *options]),
            extravars=extra,
            envvars={
                "ANSIBLE_CONFIG": str(lab.folder / "ansible.cfg"),
                "ANSIBLE_COLLECTIONS_PATH": str(project_root / "collections"),
                "ANSIBLE_HOME": str(lab.folder / "home"),
            },
            quiet=True,
        )
        events = list(done.events)
        stats = [event["event_data"] for event in events if event["event"] == "playbook_on_stats"]
        result = stats[-1].get("artifact_data", {}).get("openisb_result") if stats else None
        return done.rc, COLOUR.sub("", done.stdout.read()), result, {event["event"] for event in events}

    return run


def test_a_verification(job: Job) -> None:
    status, output, result, kinds = job("verify", verify_server="fs1")
    assert status == 0, output
    assert "RETRY" not in output and "runner_retry" not in kinds
    assert result.pop("run_id").startswith("verify-")
    assert result == {"verdict": "verified", "exit_status": 0, "report": ""}

    status, output, result, _kinds = job("verify", verify_server="nonsense")
    assert status != 0 and "There is no saveset to verify" in output
    assert (result["verdict"], result["exit_status"]) == ("failed", 1)


def test_a_restore(job: Job, tmp_path: Path) -> None:
    to = {"restore_server": "fs1", "restore_folder": str(tmp_path / "restored")}
    status, output, result, _kinds = job("restore", "--check", **to)
    assert status == 0, output
    assert (result["verdict"], result["exit_status"]) == ("checked", 0)
    status, output, result, kinds = job("restore", **to)
    assert status == 0, output
    assert "RETRY" not in output and "runner_retry" not in kinds
    assert result == {"run_id": RUN.format(2), "verdict": "restored", "exit_status": 0, "report": ""}


def test_a_prune_of_a_server_that_is_misspelt(job: Job) -> None:
    status, output, result, _kinds = job("prune", prune_keep_last=1, prune_servers=["fs1", "fs9"])
    assert status != 0 and "Nothing was pruned. There is no saveset of fs9: correct prune_servers" in " ".join(
        output.split()
    )
    assert (result["verdict"], result["exit_status"]) == ("failed", 1)


def test_a_prune_and_a_catalog_are_lines(job: Job) -> None:
    status, output, result, _kinds = job("prune", prune_keep_last=1, prune_max_percent=100)
    assert status == 0, output
    assert '\n        "1 of 2 savesets were forgotten",\n' in output
    assert result.pop("run_id").startswith("prune-")
    assert result == {"verdict": "pruned", "exit_status": 0, "report": ""}
    status, output, _result, _kinds = job("catalog")
    assert status == 0, output
    assert "\\n" not in output
    assert sum(line.strip().startswith('"fs1/m  ') for line in output.splitlines()) == 1


def test_what_is_refused(job: Job, lab: Lab) -> None:
    wrong = [{"name": "a b", "serial": VOLUME["serial"]}]
    for name, options in (("preflight", ()), ("isb", ("--check",)), ("isb", ())):
        assert refusals(lab) == []
        status, output, result, _kinds = job(name, *options, isb_volumes=wrong)
        assert status != 0 and "'a b' cannot name a volume" in output
        assert result == {"run_id": "", "verdict": "refused", "exit_status": 1, "report": ""}
    (problems,) = refusals(lab)
    assert "'a b' cannot name a volume" in "; ".join(problems)
    status, output, result, _kinds = job("isb", "--limit fs1")
    assert status != 0 and "The limit 'fs1' would leave out hosts" in output
    assert result is None


@pytest.mark.root
def test_a_run_that_preflight_refuses(job: Job, lab: Lab) -> None:
    key = lab.folder / "state/report-key.pem"  # without it, nothing proves that the journal may be written to
    key.parent.mkdir(exist_ok=True)
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    for name, options in (("preflight", ()), ("isb", ("--check",)), ("isb", ())):
        assert refusals(lab) == []
        status, output, result, _kinds = job(name, *options)
        assert status != 0 and PREFLIGHT in output
        assert result == {"run_id": "", "verdict": "refused", "exit_status": 1, "report": ""}
    ((problem, *_others),) = refusals(lab)
    assert problem in output.replace("\n", "")
