# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks as a drill has them done, and what must be as before after each of them."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.checks import bounded, known
from ansible_collections.openisb.backup.plugins.module_utils.checks.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.checks.isolation import (
    CLONE_NEWIPC,
    PR_SET_CHILD_SUBREAPER,
    shut_off,
)
from ansible_collections.openisb.backup.plugins.module_utils.checks.places import Places
from ansible_collections.openisb.backup.plugins.module_utils.checks.record import KEPT

Run = Callable[..., dict[str, Any]]


MARK = f"OPENISB_CHECK_{os.getpid()}"
"""In place of the usual one: others on this machine may run checks, too."""


def marked() -> dict[int, str]:
    """Processes that a check has started, by their ids as this process sees them: their command lines."""
    found = {}
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"{MARK}=".encode() in environ.read_bytes():
                command = (environ.parent / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(environ.parent.name)] = command.decode(errors="replace")
        except OSError:
            continue
    return found


def parent(pid: int) -> int:
    """The parent of a process, as this process sees it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def shared_memory() -> list[str]:
    """System V shared memory and semaphores that these tests see, by their ids."""
    tables = [Path("/proc/sysvipc", name).read_text().splitlines()[1:] for name in ("shm", "sem")]
    return [" ".join(line.split()[:2]) for table in tables for line in table]


@pytest.fixture(scope="session", autouse=True)
def own_shared_memory() -> None:
    """From here on this process sees its own shared memory alone, and none of what runs beside the tests."""
    if os.geteuid() == 0:
        assert ctypes.CDLL(None).unshare(CLONE_NEWIPC) == 0


@pytest.fixture(params=["shut off", "not shut off"])
def isolation(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Checks as they are, and as on a host that refuses namespaces, where somebody has said that it may be so."""
    if request.param == "not shut off":

        def refused(network: bool) -> list[str]:
            ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
            return ["mounts", "shared memory", "processes", "network"]

        monkeypatch.setattr(bounded, "shut_off", refused)
    return str(request.param)


def mounts(folder: str) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if line.split()[4].startswith(folder)]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder in memory that any user can enter, with a short name: servers run as users and have sockets."""
    with tempfile.TemporaryDirectory(prefix="openisb-", dir="/tmp") as name:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", name], check=True)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", "--lazy", name], check=True)


@pytest.fixture
def open_scratch() -> None:
    """Anybody may pass to the folder that checks write to; as a rule, only root may."""


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Run]:
    """Runs one check, and asserts that nothing of it is left: process, shared memory, mount, file."""

    monkeypatch.setattr(bounded, "MARK", MARK)
    with tempfile.TemporaryDirectory(prefix="openisb-", dir="/tmp") as scratch:
        is_open = "not shut off" in request.node.name or "open_scratch" in request.fixturenames
        os.chmod(scratch, 0o755 if is_open else 0o700)

        def do(description: dict[str, Any], **given: Any) -> dict[str, Any]:
            places = Places({there: str(here) for there, here in given.get("mounts", {}).items()})
            devices = {volume: str(device) for volume, device in given.get("devices", {}).items()}
            kept = {
                "user": given.get("user", ""),
                "disposable": given.get("disposable", True),
                "unconfined": given.get("unconfined", bounded.shut_off is not shut_off),
            }
            check = known.build(description, Surroundings(places, devices, given.get("context", {}), **kept))
            before = shared_memory()
            result = bounded.run(check, scratch)
            assert shared_memory() == before, result
            assert mounts(scratch) == []
            assert marked() == {}
            assert os.listdir(scratch) == []
            assert set(result) == {
                "kind", "what", "ok", "detail", "seconds", "output", "output_sha256", "commands", "files"
            }  # fmt: skip
            assert "\n" not in result["detail"] and result["detail"]
            if len(result["output"]) < KEPT and "output_sha256" in result:
                assert result["output_sha256"] == hashlib.sha256(result["output"].encode()).hexdigest()
            return result

        yield do
