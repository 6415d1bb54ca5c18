# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source is lost: what reads gets an error in bounded time, and the LUN can still be ended."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import processes

if TYPE_CHECKING:
    from .conftest import Disks, Made, Served

pytestmark = pytest.mark.root
Mount = Callable[..., Path]
MIB = 1024**2


def read(device: str, offset: int) -> tuple[int, float]:
    """Read past all caches; returns the exit status and the seconds that it took."""
    started = time.monotonic()
    words = ["dd", f"if={device}", "of=/dev/null", "bs=64k", "count=16", f"skip={offset // 65536}", "iflag=direct"]
    done = subprocess.run(words, check=False, capture_output=True)
    return done.returncode, time.monotonic() - started


@contextlib.contextmanager
def far_away(number: int) -> Iterator[Callable[[str], None]]:
    """A network namespace that is reached over a cable; yields what sets the cable `up` or `down`."""
    name, near = f"idr{number}", f"idr{number}n"
    commands = [
        f"ip netns add {name}",
        f"ip link add {near} type veth peer name far netns {name}",
        f"ip address add 198.18.{number % 250}.1/30 dev {near}",
        f"ip link set {near} up",
        f"ip -n {name} address add 198.18.{number % 250}.2/30 dev far",
        f"ip -n {name} link set far up",
        f"ip -n {name} link set lo up",
    ]
    try:
        for command in commands:
            subprocess.run(command.split(), check=True)
        yield lambda state: subprocess.run(f"ip -n {name} link set far {state}".split(), check=True)  # type: ignore
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=False)
        subprocess.run(["ip", "link", "delete", near], check=False, capture_output=True)


def test_a_killed_server(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    disk = disks.filesystem("ext4")
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk)
    assert made.luns.trouble(lun["name"]) == ""
    point = mount(lun["parts"][0])
    assert read(lun["device"], 20 * MIB)[0] == 0
    os.kill(served.pid(disk), signal.SIGKILL)
    status, seconds = read(lun["device"], 30 * MIB)
    assert status != 0
    assert seconds < 5
    assert "127.0.0.1 does not answer at port" in made.luns.trouble(lun["name"])
    with pytest.raises(OSError, match="Input/output error|Read-only"), (point / "new").open("wb") as stream:
        stream.write(bytes(MIB))
        os.fsync(stream.fileno())
    assert made.luns.stop(lun["name"]) == []
    assert made.traces() == []
    assert not os.path.ismount(point)


def test_a_cut_cable(disks: Disks, made: Made, mount: Mount) -> None:
    """No packet comes back, and nobody says so: the time that a LUN may be silent is kept."""
    disk, timeout = disks.filesystem("xfs"), 3.0
    with far_away(os.getpid() % 30000) as cable:
        number = os.getpid() % 30000
        server = subprocess.Popen(
            ["ip", "netns", "exec", f"idr{number}", "nbdkit", "-f", "--port", "10809", "--readonly", "file", disk]
        )
        try:
            lun = started(made, f"nbd://198.18.{number % 250}.2:10809/", timeout)
            point = mount(lun["parts"][0])
            assert read(lun["device"], 20 * MIB)[0] == 0
            cable("down")
            status, seconds = read(lun["device"], 200 * MIB)
            assert status != 0
            assert seconds < 2 * timeout + 2
            begun = time.monotonic()
            assert made.luns.stop(lun["name"]) == []
            assert time.monotonic() - begun < 3 * timeout + 10
            assert not os.path.ismount(point)
            assert made.traces() == []
        finally:
            server.kill()  # it waits for its clients when it is asked politely
            server.wait(10)


@pytest.mark.slow
def test_a_cable_that_is_out_for_a_moment(disks: Disks, made: Made) -> None:
    """Shorter than the LUN may be silent: what reads waits, and goes on."""
    disk, number = disks.filesystem("xfs"), os.getpid() % 30000
    with far_away(number) as cable:
        server = subprocess.Popen(
            ["ip", "netns", "exec", f"idr{number}", "nbdkit", "-f", "--port", "10809", "--readonly", "file", disk]
        )
        try:
            lun = started(made, f"nbd://198.18.{number % 250}.2:10809/", 30.0)
            cable("down")
            back = threading.Timer(3.0, cable, ["up"])
            back.start()
            status, seconds = read(lun["device"], 100 * MIB)
            back.join()
            assert status == 0
            assert seconds > 2.5
            assert made.luns.stop(lun["name"]) == []
        finally:
            server.kill()
            server.wait(10)


def started(made: Made, uri: str, timeout: float) -> dict[str, Any]:
    """A LUN of a server that is about to be up."""
    from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError

    for _try in range(50):
        with contextlib.suppress(LunError):
            return made.start(uri, timeout=timeout)
        time.sleep(0.1)
    return made.start(uri, timeout=timeout)


@pytest.mark.slow
def test_a_server_that_hangs(disks: Disks, served: Served, made: Made, mount: Mount) -> None:
    """Its kernel answers for it, so nothing is lost as far as TCP goes: what reads waits, until the LUN is ended."""
    disk = disks.filesystem("ext4")
    uri, psk = served.start(disk)
    lun = made.start(uri, psk=psk, timeout=2.0)
    point = mount(lun["parts"][0])
    pid = served.pid(disk)
    (point / "new").write_bytes(bytes(MIB))  # has to be written when it is unmounted
    os.kill(pid, signal.SIGSTOP)
    try:
        outcome: list[tuple[int, float]] = []
        reader = threading.Thread(target=lambda: outcome.append(read(lun["device"], 30 * MIB)))
        reader.start()
        time.sleep(0.5)
        begun = time.monotonic()
        left = made.luns.stop(lun["name"])
        assert left == []
        assert time.monotonic() - begun < 20
        reader.join(5)
        assert outcome
        assert outcome[0][0] != 0
        assert made.traces() == []
    finally:
        os.kill(pid, signal.SIGCONT)
    assert processes.identity(pid)["ticks"] is not None


@pytest.mark.slow
def test_no_server_at_all(made: Made, disks: Disks, served: Served) -> None:
    """A server that takes the connection and says nothing."""
    from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError

    disk = disks.filesystem("ext4")
    uri, psk = served.start(disk)
    os.kill(served.pid(disk), signal.SIGSTOP)
    begun = time.monotonic()
    with pytest.raises(LunError, match="nbdkit was not ready after 2 s"):
        made.start(uri, psk=psk, timeout=2.0)
    assert time.monotonic() - begun < 10
    assert made.traces() == []
    os.kill(served.pid(disk), signal.SIGCONT)
