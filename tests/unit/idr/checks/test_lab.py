# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's checker as a check of a drill, on databases that its own routines have filled."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from .conftest import Run
from .gtm import DATA, GTM_DIST, Gtm

pytestmark = pytest.mark.root

FILES = Path(__file__).resolve().parents[4] / "lab/roles/lab/files"
PAIRS = [("fs1", "fs2"), ("fs2", "fs3"), ("fs3", "fs1")]


class Ring:
    """Three servers of the lab that have sent each other money."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.servers: dict[str, Gtm] = {}
        for name in ("fs1", "fs2", "fs3"):
            (folder / name).mkdir(parents=True)
            files = (str(folder / name / "mumps.dat"), str(folder / name / "b.dat"))
            database = Gtm(folder / name, files=files, routines=FILES / "m")
            database.do(f'do seed^LABLOAD("{name}",5,10)')
            self.servers[name] = stack.enter_context(database.opened())
        for sender, receiver in PAIRS:
            for number in range(1, 4):
                self.send(sender, receiver)
                self.receive(sender, receiver, number)

    def send(self, sender: str, receiver: str) -> None:
        self.servers[sender].do(f'do entry^LABLOAD("{receiver}",7,5)')

    def receive(self, sender: str, receiver: str, number: int) -> None:
        entry = self.servers[sender].value(f'^OUT("{receiver}",{number})')
        self.servers[receiver].do(f'do store^LABLOAD("{sender}",{number},"{entry}")')

    def copy(self, *names: str) -> None:
        """What a drill would mount of these servers."""
        for name in names or self.servers:
            target = self.folder / "mounted" / name
            shutil.rmtree(target, ignore_errors=True)
            self.servers[name].run("mupip", "freeze", "-on", "*")
            shutil.copytree(self.servers[name].folder, target)
            self.servers[name].run("mupip", "freeze", "-off", "*")

    def context(self, *names: str) -> dict[str, Any]:
        mounts = {name: {"/srv/m": str(self.folder / "mounted" / name)} for name in names or self.servers}
        return {"drill": "idr-1", "servers": {name: {"mounts": each, "devices": {}} for name, each in mounts.items()}}


@pytest.fixture
def ring(tmp_path: Path) -> Iterator[Ring]:
    with ExitStack() as stack:
        yield Ring(tmp_path, stack)


@pytest.fixture
def check(run: Run) -> Callable[[dict[str, Any]], dict[str, Any]]:
    arguments = ["--mounted", "--routines", str(FILES / "m"), "--gtm-dist", GTM_DIST]
    command = {"name": "command", "user": "root", "argv": [sys.executable, str(FILES / "labcheck"), *arguments]}
    return lambda context: run(command, context=context)


def report(result: dict[str, Any]) -> dict[str, Any]:
    return json.loads(result["output"].splitlines()[1])


def test_one_point_in_time(ring: Ring, check: Callable[..., Any]) -> None:
    ring.copy()
    before = (ring.folder / "mounted/fs1/mumps.dat").read_bytes()
    result = check(ring.context())
    assert (result["ok"], result["detail"]) == (True, "one point in time: fs1, fs2, fs3; all clean"), result
    told = report(result)
    assert (told["one_point_in_time"], told["sound"], told["violations"]) == (True, True, [])
    assert told["servers"]["fs1"]["sent"] == {"fs2": 3}
    assert (ring.folder / "mounted/fs1/mumps.dat").read_bytes() == before


def test_two_points_in_time(ring: Ring, check: Callable[..., Any]) -> None:
    ring.copy()
    ring.send("fs1", "fs2")
    ring.receive("fs1", "fs2", 4)
    ring.copy("fs2")
    result = check(ring.context())
    assert (result["ok"], result["commands"][0]["rc"]) == (False, 2)
    assert result["detail"] == (
        "exit status 2: NOT one point in time (fs1, fs2, fs3): fs2 has received entry 4, fs1 has sent no further than 3"
    )
    assert not report(result)["one_point_in_time"]


@pytest.mark.slow
def test_damage(ring: Ring, check: Callable[..., Any]) -> None:
    ring.copy()
    with open(ring.folder / "mounted/fs3/mumps.dat", "r+b") as stream:
        stream.seek(DATA + 200 * 1024)
        stream.write(b"\xa5" * 64 * 1024)
    result = check(ring.context())
    assert not result["ok"]
    assert "fs3: its database is not clean" in result["detail"]


@pytest.mark.slow
def test_what_cannot_be_told_is_no_success(ring: Ring, check: Callable[..., Any]) -> None:
    ring.copy()
    (ring.folder / "mounted/fs2/mumps.dat").unlink()
    result = check(ring.context())
    assert (result["ok"], result["commands"][0]["rc"]) == (False, 1)
    where = ring.folder / "mounted/fs2"
    assert result["detail"] == f"exit status 1: fs2: none of its mounts holds mumps.dat: {where}"
    nobody = check({"drill": "idr-1", "servers": {}})
    assert nobody["detail"].startswith("exit status 1: 'servers' has no server")


@pytest.mark.slow
def test_the_first_way_in_is_as_before(ring: Ring, tmp_path: Path) -> None:
    ring.copy()
    images = {name: {"m": str(ring.folder / "mounted" / name / "mumps.dat")} for name in ring.servers}
    asked = {"images": images, "gtm_dist": GTM_DIST, "routines": str(FILES / "m"), "scratch": str(tmp_path / "scratch")}
    done = subprocess.run(
        [sys.executable, FILES / "labcheck"], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    assert (told["one_point_in_time"], told["sound"]) == (True, True)
    assert told["servers"]["fs1"]["volumes"]["m"] == {
        "path": images["fs1"]["m"],
        "filesystem": None,
        "clean": True,
        "said": "",
    }
