# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The site's own commands: told of all servers, judged by exit status, and ended with all that they have started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.checks import bounded

from .conftest import Run, marked, parent

CONTEXT = {"drill": "idr-20261128T210000Z-4f1c2a", "servers": {"fs1": {"mounts": {"/srv/m": "/mnt/ä"}}}}
Script = Callable[..., list[str]]

pytestmark = pytest.mark.root


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Makes a shell script, and returns its command line."""

    def make(text: str, *arguments: str) -> list[str]:
        path = tmp_path / "script"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return [str(path), *arguments]

    return make


def check(run: Run, argv: list[str], **options: Any) -> dict[str, Any]:
    """Run a command of the site's, by default with all rights, as it writes to folders of the tests."""
    return run({"name": "command", "argv": argv, "user": "root", **options}, context=CONTEXT)


def test_it_is_told_of_the_drill(run: Run, script: Script, tmp_path: Path) -> None:
    argv = script(f"cat >{tmp_path}/told; env >{tmp_path}/env; pwd; echo $1; ls -d $OPENISB_SCRATCH", "a b")
    result = check(run, argv, environment={"COLOUR": "green"}, chdir="/usr", what="our own")
    assert result["ok"], result
    assert (result["what"], result["commands"][0]["argv"], result["commands"][0]["rc"]) == ("our own", argv, 0)
    assert json.loads((tmp_path / "told").read_text()) == CONTEXT
    environment = (tmp_path / "env").read_text()
    assert "COLOUR=green\n" in environment
    assert f"OPENISB_DRILL={CONTEXT['drill']}\n" in environment
    lines = result["output"].splitlines()
    assert lines[:3] == [f"$ {argv[0]} 'a b'", "/usr", "a b"]
    assert not Path(lines[3]).exists()  # the folder for what it writes is gone


def test_it_is_judged_by_its_exit_status(run: Run, script: Script) -> None:
    result = check(run, script("echo one; echo the books do not agree >&2; exit 3"))
    assert (result["ok"], result["detail"]) == (False, "exit status 3: the books do not agree")
    assert check(run, script("exit 3"), accept=[0, 3])["ok"]
    assert not check(run, script("exit 0"), accept=[3])["ok"]
    killed = check(run, script("kill -9 $$"))
    assert (killed["ok"], killed["commands"][0]["rc"]) == (False, -9)
    missing = check(run, ["/nowhere/to/be/found"])
    assert missing["detail"] == "/nowhere/to/be/found cannot be started: No such file or directory"


def test_one_that_reads_nothing_of_much_is_no_trouble(run: Run) -> None:
    context = {"drill": "d", "filler": "x" * 1_000_000}
    assert run({"name": "command", "argv": ["/bin/true"]}, context=context)["ok"]
    counted = run({"name": "command", "argv": ["/usr/bin/wc", "-c"]}, context=context)
    assert int(counted["detail"]) == len(json.dumps(context))


def test_much_output_is_kept_in_part_and_hashed_whole(run: Run, script: Script) -> None:
    argv = script("seq 1 300000; echo the end")
    result = check(run, argv)
    assert result["detail"] == "the end"
    assert len(result["output"]) == 8000
    assert result["output"].endswith("300000\nthe end\n")
    whole = subprocess.run(argv, capture_output=True, check=True).stdout
    import hashlib

    assert result["output_sha256"] == hashlib.sha256(f"$ {argv[0]}\n".encode() + whole).hexdigest()


RIGHTS = """
id -un 2>/dev/null || id -u
id -G
grep -E '^(CapInh|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs):' /proc/self/status | cut -f2
touch "$OPENISB_SCRATCH/x" /var/tmp/x && echo written
"""


@pytest.mark.parametrize(("user", "shown"), [(None, "65530 65530"), ("nobody", "nobody 65534")])
def test_it_has_no_rights(run: Run, user: str | None, shown: str) -> None:
    """The copy's content may have taken it over. What it writes to its scratch folder goes, whoever it runs as."""
    result = check(run, ["/bin/sh", "-c", RIGHTS], user=user)
    assert result["ok"], result
    nothing = ["0" * 16] * 5
    assert result["output"].splitlines()[-9:] == [*shown.split(), *nothing, "1", "written"]
    assert not Path("/var/tmp/x").exists()


def test_root_has_to_be_named(run: Run) -> None:
    assert check(run, ["/bin/sh", "-c", "id -un"], user="root")["detail"] == "root"
    refused = run({"name": "command", "argv": ["/bin/true"]}, context=CONTEXT, user="root")
    assert (refused["ok"], refused["commands"]) == (False, [])
    assert "root has all privileges on this host" in refused["detail"]


def test_an_unknown_user_is_named(run: Run) -> None:
    unknown = check(run, ["/bin/true"], user="nobody-here")
    assert (unknown["ok"], unknown["commands"]) == (False, [])
    assert "there is no user nobody-here" in unknown["detail"]


HANGS = {
    "plain": "sleep 600",
    "deaf": "trap '' TERM; sleep 600 & wait; sleep 600",
    "daemon": "setsid sh -c 'trap \"\" TERM; sleep 600 & sleep 600' >/dev/null 2>&1 & sleep 600",
    "silent": "exec >/dev/null 2>&1; sleep 600",
    "chatty": "exec yes",
}


@pytest.mark.parametrize("how", HANGS)
def test_one_that_hangs_is_ended_with_all_that_it_started(run: Run, script: Script, how: str) -> None:
    result = check(run, script(f"echo begun\n{HANGS[how]}"), timeout=1)
    assert not result["ok"]
    assert "was ended: the check took longer than its 1 s" in result["detail"], result
    assert result["seconds"] < 8
    assert "begun\n" in result["output"] or how == "chatty"


def test_what_it_leaves_running_is_ended(run: Run, script: Script, tmp_path: Path) -> None:
    text = f"setsid sh -c 'sleep 600' </dev/null & setsid sh -c 'sleep 2; touch {tmp_path}/late' & exit 0"
    result = check(run, script(text), timeout=30)
    assert result["ok"], result
    assert result["seconds"] < 5
    time.sleep(2)
    assert not (tmp_path / "late").exists()


def test_what_it_mounts_is_seen_by_nobody_else(run: Run, tmp_path: Path) -> None:
    command = f"mount -t tmpfs none {tmp_path} && touch {tmp_path}/there && ls {tmp_path}"
    result = check(run, ["/bin/sh", "-c", command])
    assert (result["ok"], result["detail"]) == (True, "there"), result
    assert not (tmp_path / "there").exists()


def test_a_killed_check_leaves_nothing(run: Run, script: Script, tmp_path: Path) -> None:
    """Somebody kills the process of the check itself, such as the kernel when memory runs out."""

    def kill() -> None:
        give_up = time.monotonic() + 10
        while not (tmp_path / "begun").exists() and time.monotonic() < give_up:
            time.sleep(0.05)
        (pid,) = [pid for pid, command in marked().items() if str(tmp_path / "script") in command]
        os.kill(parent(pid), signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    result = check(run, script(f"setsid sleep 600 & touch {tmp_path}/begun; sleep 600"), timeout=30)
    killer.join()
    assert (result["ok"], result["detail"]) == (False, "the process of the check was ended by somebody else")
    assert result["commands"][0]["argv"] == [str(tmp_path / "script")]
    assert result["seconds"] < 10


def test_a_check_that_waits_for_a_dead_mount_is_killed(
    run: Run, script: Script, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What hangs is the check's own code, as in reading a file; simulated by stopping it."""
    monkeypatch.setattr(bounded, "LATE", 0.5)
    stopped = []

    def stop() -> None:
        give_up = time.monotonic() + 10
        while not stopped and time.monotonic() < give_up:
            stopped.extend(parent(pid) for pid, command in marked().items() if str(tmp_path / "script") in command)
        os.kill(stopped[0], signal.SIGSTOP)

    stopper = threading.Thread(target=stop)
    stopper.start()
    result = check(run, script("sleep 0.9"), timeout=1)
    stopper.join()
    assert not result["ok"]
    assert result["detail"].startswith("it did not end within 1 s and was killed: a disk or a mount may not answer")
    assert result["seconds"] < 5
    assert marked() == {}
