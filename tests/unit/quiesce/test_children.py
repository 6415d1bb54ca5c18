# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a site's command finds of the holder that starts it: nothing."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import children
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import records
from marks import slow

from .conftest import Holds, wait_for

FACTS = """
umask > {out}.new
cat /proc/self/oom_score_adj >> {out}.new
grep -E '^(SigBlk|SigIgn|VmLck)' /proc/self/status >> {out}.new
ls /proc/self/fd >> {out}.new
mv {out}.new {out}
touch {out}.made
"""


@pytest.fixture
def umask() -> Iterator[int]:
    """The login's umask; a site may have another than 022."""
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def command(out: Path) -> dict[str, object]:
    shell = ["/bin/sh", "-c", FACTS.format(out=out)]
    return {"name": "command", "freeze": shell, "thaw": shell}


def signals(mask: str) -> set[int]:
    return {number + 1 for number in range(64) if int(mask, 16) >> number & 1}


@pytest.mark.parametrize("who", ["holder", slow("partner"), slow("guard")])
def test_a_command_runs_as_if_the_login_had_started_it(
    who: str, holds: Holds, tmp_path: Path, umask: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not every machine lets a process be spared; that it be ended first is allowed everywhere, and inherited as well.
    login = Path("/proc/self/oom_score_adj").read_text().strip()
    monkeypatch.setattr(children, "SPARED", b"500")
    out = tmp_path / "facts"
    holds.arm(descriptions=[command(out)])
    assert holds.ask("freeze")["ok"]
    spared = Path(f"/proc/{holds.find().record[who]['pid']}/oom_score_adj")
    wait_for(lambda: spared.read_text() == "500\n")
    if who != "holder":
        out.unlink()
        holds.kill(*(["holder"] if who == "partner" else ["partner", "holder"]))
        holds.wait_for_thaw_by(who)
    else:
        assert holds.ask("thaw")["ok"]
    found = out.read_text().splitlines()
    facts = dict(line.split(":\t", 1) for line in found[2:5])
    assert (int(found[0], 8), found[1]) == (umask, login)
    assert stat.S_IMODE(Path(f"{out}.made").stat().st_mode) == 0o666 & ~umask
    assert signals(facts["SigIgn"]) & {signal.SIGHUP, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT} == set()
    assert signals(facts["SigBlk"]) == set()
    assert facts["VmLck"].split() == ["0", "kB"]
    assert found[5:] == ["0", "1", "2", "3"]  # the last one is ls's own


def test_the_holders_own_files_are_for_their_owner_alone(holds: Holds) -> None:
    before = os.umask(0)
    try:
        holds.arm()
        holds.ask("freeze")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in Path(holds.run_dir).iterdir()}
        assert modes == {"holder-r1.sock": 0o600, "hold-r1.json": 0o600, "quiesce.lock": 0o600}
        assert stat.S_IMODE(os.stat(holds.run_dir).st_mode) & 0o022 == 0
    finally:
        os.umask(before)


def test_a_process_that_is_not_protected_costs_its_programs_nothing() -> None:
    """Without anything to do in the child, Python can start a program without copying itself."""
    assert children._preparation(False, None) is None
    process = children.start(["/bin/sh", "-c", "exit 3"], {}, stdin=subprocess.DEVNULL)
    assert process.wait() == 3
    wait_for(lambda: process.returncode == 3)


def test_a_folder_that_others_may_write_to_is_refused(holds: Holds) -> None:
    folder = Path(holds.run_dir)
    folder.mkdir()
    folder.chmod(0o777)
    with pytest.raises(records.HolderError, match=r"other users may write to .*chmod go-w"):
        holds.arm()
    folder.chmod(0o755)
    link = holds.folder / "link"
    link.symlink_to(folder)
    holds.run_dir = str(link)
    with pytest.raises(records.HolderError, match="is not a directory"):
        holds.arm()
