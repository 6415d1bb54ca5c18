# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Damage is found, with the right reason: a drill of something that is not right never passes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lab import Lab

from .conftest import Drill, Drills

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.slow, pytest.mark.usefixtures("nothing_left")]

PACKS = "/var/lib/openisb/repository/packs"
#: A byte in the middle of each pack's data is another one, and the old one is kept.
FLIP = f"""
import glob, os
for path in glob.glob("{PACKS}/*/*"):
    with open(path, "r+b") as pack:
        pack.seek(os.path.getsize(path) // 2)
        byte = pack.read(1)
        pack.seek(-1, 1)
        pack.write(bytes([byte[0] ^ 1]))
"""


def not_passed(drill: Drill) -> list[str]:
    """The problems of a drill that must have failed, and have proven nothing of the servers that are hurt."""
    assert drill.status != 0, drill.output
    assert f"Drill {drill.id}: FAILED" in drill.output
    assert drill.report["exit_status"] == 2
    problems: list[str] = drill.report["problems"]
    return problems


def test_a_key_that_is_wrong(drills: Drills) -> None:
    drill = drills.run(host_vars={"backup1": {"repository_passphrase": "of somebody else"}})
    assert drill.status != 0 and drill.id == ""
    assert "passphrase" in drill.said


@contextmanager
def flipped(lab: Lab) -> Iterator[None]:
    """One bit of each pack is another one. The same call puts it right again."""
    lab.on("backup1", f"/usr/bin/python3 -c '{FLIP}'")
    try:
        yield
    finally:
        lab.on("backup1", f"/usr/bin/python3 -c '{FLIP}'")


@contextmanager
def removed(lab: Lab) -> Iterator[None]:
    """Every pack is gone."""
    lab.on("backup1", f"mv {PACKS} {PACKS}.away && mkdir {PACKS}")
    try:
        yield
    finally:
        lab.on("backup1", f"rm -rf {PACKS} && mv {PACKS}.away {PACKS}")


def test_a_bit_in_a_pack(drills: Drills, lab: Lab) -> None:
    with flipped(lab):
        problems = not_passed(drills.run("-e", "idr_servers=fs1"))
    assert any(
        "the check content of every byte of its savesets" in text and "damage found" in text for text in problems
    )


def test_packs_that_are_gone(drills: Drills, lab: Lab) -> None:
    with removed(lab):
        problems = not_passed(drills.run("-e", "idr_servers=fs2"))
    assert any(text.startswith("fs2: ") for text in problems)
    assert any("there is no such object" in text for text in problems), problems


def test_wrong_in_several_ways_at_once(drills: Drills, lab: Lab) -> None:
    """Servers of two runs, a check that hangs, and a database that is damaged inside: each is told of its server."""
    if len(lab.runs("fs2")) == 1:
        status, output = lab.play("isb.yml")
        assert status == 0, output
    first, *_others, second = lab.runs("fs2")
    gtm = {
        "name": "gtm",
        "gtm_dist": "/usr/lib/x86_64-linux-gnu/fis-gtm/V7.0-005_x86_64",
        "files": ["/srv/m/mumps.dat"],
    }
    # Behind the header, where the blocks are.
    hurt = ["/usr/bin/dd", "if=/dev/urandom", "of=/srv/idr/fs2/srv/m/mumps.dat", "bs=512", "seek=8256", "count=4000"]
    host_vars = {
        "fs1": {"idr_checks": [{"name": "command", "argv": ["/usr/bin/sleep", "8765"], "timeout": 3}]},
        "fs2": {"idr_checks": [{"name": "command", "argv": [*hurt, "conv=notrunc"], "user": "root"}, gtm]},
    }
    begun = time.monotonic()
    drill = drills.run("-e", f"idr_point=fs1={first},fs2={second},fs3={second}", host_vars=host_vars)
    assert time.monotonic() - begun < 900  # and not the 8,765 s of the check that hangs
    problems = not_passed(drill)
    verdicts = {server: entry["verdict"] for server, entry in drill.report["servers"].items()}
    assert verdicts == {"fs1": "failed", "fs2": "failed", "fs3": "passed"}
    assert any(
        text.startswith("fs1: the check command of /usr/bin/sleep 8765 failed: ") and "took longer than its 3 s" in text
        for text in problems
    )
    assert any(text.startswith("fs2: the check gtm of ") for text in problems)
    assert any(
        "not of one consistency point but of the runs " + ", ".join(sorted([first, second])) in text
        for text in problems
    )
    assert any(text.startswith("all servers together: the check command of one point in time") for text in problems)
    (closed,) = [r for r in lab.drills() if r["run_id"] == drill.id and r["event"] == "closed"]
    assert closed["data"]["proven"] == []


def test_the_network_is_cut_in_mid_mount(drills: Drills, lab: Lab, tmp_path: Path) -> None:
    """Nothing waits for ever for a backup server that has fallen silent, and the drill says what it was."""
    known = drills.opened()
    address = lab.on("dr1", "hostname -I").split()[0]
    with drills.held(
        "idr : Mount the volumes", tmp_path, "-e", "idr_servers=fs2", "-e", "idr_lun_timeout=5"
    ) as process:
        lab.on("backup1", f"ip route add blackhole {address}")
        try:
            begun = time.monotonic()
            drills.let_go(tmp_path)
            output, _none = process.communicate(timeout=200)
            seconds = time.monotonic() - begun
        finally:
            lab.on("backup1", f"ip route del blackhole {address}")
    drill = drills.ended(process.returncode, output, known)
    problems = not_passed(drill)
    assert seconds < 120
    assert any(text.startswith("fs2: ") and "backup1 does not answer at port" in text for text in problems), problems
