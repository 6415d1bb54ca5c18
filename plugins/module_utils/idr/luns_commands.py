# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a command on a DR host, bounded in time.

A command that reads a LUN whose source hangs cannot be killed before the source is cut. So this never waits for the end
of a command that took too long: whoever calls cuts the source, and with that the command ends.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from typing import NamedTuple

from .. import processes
from ..plain import plain
from .luns_errors import LunError

PATH = "/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin:/bin"
PACKAGES = {
    "nbdkit": "nbdkit",
    "nbdfuse": "libnbd-bin or nbdfuse",
    "nbd-client": "nbd-client or nbd",
    "blkid": "util-linux",
    "partx": "util-linux",
    "umount": "util-linux",
    "vgimportclone": "lvm2",
    "vgchange": "lvm2",
    "vgs": "lvm2",
    "lvs": "lvm2",
}
FIRST_DESCRIPTOR = processes.FIRST_SOCKET
TOLD = 2000  # characters of a command's errors that a text repeats


class Done(NamedTuple):
    """What a command left."""

    status: int
    output: str
    errors: str


def program(name: str) -> str:
    """The path of a program, or an error that names the package."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise LunError(f"{name} is not installed on this host: install the package {PACKAGES.get(name, name)}")
    return found


def environment(**more: str) -> dict[str, str]:
    """What programs get to see: texts in English, and nothing of the caller's."""
    return {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **more}


def run(arguments: list[str], timeout: float) -> Done:
    """Run a program by its name, and return what it left. Raises LunError where it takes too long."""
    status, output, errors = _run(arguments, timeout)
    return Done(status, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


def head(path: str, length: int, timeout: float) -> bytes:
    """The first bytes of a file or device: read by a program, for who reads himself may wait for ever."""
    status, output, errors = _run(["head", f"--bytes={length}", path], timeout)
    if status:
        raise LunError(f"{path} cannot be read: {' '.join(errors.decode('utf-8', 'replace').split())}")
    return output


def _run(arguments: list[str], timeout: float) -> tuple[int, bytes, bytes]:
    process = subprocess.Popen(
        [program(arguments[0]), *arguments[1:]],
        env=environment(),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        output, errors = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        _give_up(process)
        raise LunError(
            f"'{' '.join(arguments)}' took longer than {timeout:.3g} s: the source of the LUN may hang"
        ) from None
    return process.returncode, output, errors


def must(arguments: list[str], timeout: float) -> str:
    """The output of a program that has to succeed."""
    done = run(arguments, timeout)
    if done.status:
        raise LunError(f"'{' '.join(arguments)}' failed: {told(done)}")
    return done.output


def told(done: Done) -> str:
    """Why a command failed, in one line of plain text: it may repeat what a copy says."""
    return (
        plain(" ".join((done.errors or done.output).split()))[-TOLD:]
        or f"exit status {done.status}, and no reason given"
    )


def spawn(arguments: list[str], log: str, descriptors: tuple[int, ...] = (), **variables: str) -> int:
    """Start a program that outlives us, with the file ``log`` as its output; returns its process id.

    It finds ``descriptors`` from FIRST_DESCRIPTOR on.
    """
    command = [program(arguments[0]), *arguments[1:]]
    return int(processes.spawn_orphan(command, log, environment(**variables), inherited=descriptors))


def _give_up(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()
