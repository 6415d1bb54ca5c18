# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a command on a DR host with a time limit.

A command that reads a LUN whose source hangs cannot be killed before the source is cut off. So this never waits for the
end of a command that timed out: the caller cuts off the source, which ends the command.
"""

from __future__ import annotations

import shutil
from typing import NamedTuple

from ..host import orphans, users
from ..host.commands import TOLD, Ended, run_or_leave
from ..host.plain import plain
from .errors import LunError

PATH = users.PATH
PACKAGES = {
    "nbdkit": "nbdkit",
    "nbdfuse": "libnbd-bin or nbdfuse",
    "nbd-client": "nbd-client or nbd",
    "blkid": "util-linux",
    "partx": "util-linux",
    "mount": "mount or util-linux",
    "umount": "util-linux",
    "vgimportclone": "lvm2",
    "vgchange": "lvm2",
    "vgs": "lvm2",
    "pvs": "lvm2",
    "vgmknodes": "lvm2",
    "lvs": "lvm2",
}
FIRST_DESCRIPTOR = orphans.FIRST_SOCKET


class Done(NamedTuple):
    """The result of a command."""

    status: int
    output: str
    errors: str


def program(name: str) -> str:
    """The path of a program. Raises LunError, which names the package."""
    found = shutil.which(name, path=PATH)
    if found is None:
        raise LunError(f"{name} is not installed on this host: install the package {PACKAGES.get(name, name)}")
    return found


def environment(**more: str) -> dict[str, str]:
    """The environment of programs: English messages, and nothing from the caller."""
    return {"PATH": PATH, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", **more}


def run(arguments: list[str], timeout: float) -> Done:
    """Run a program by its name, and return its result. Raises LunError if it takes too long."""
    status, output, errors = _run(arguments, timeout)
    return Done(status, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace"))


def head(path: str, length: int, timeout: float) -> bytes:
    """The first bytes of a file or device: read by a separate program, because a direct read may block forever."""
    status, output, errors = _run(["head", f"--bytes={length}", path], timeout)
    if status:
        raise LunError(f"{path} cannot be read: {' '.join(errors.decode('utf-8', 'replace').split())}")
    return output


def _run(arguments: list[str], timeout: float) -> Ended:
    try:
        return run_or_leave([program(arguments[0]), *arguments[1:]], environment(), timeout)
    except TimeoutError:
        raise LunError(
            f"'{' '.join(arguments)}' took longer than {timeout:.3g} s: the source of the LUN may hang"
        ) from None


def must(arguments: list[str], timeout: float) -> str:
    """The output of a program that must succeed."""
    done = run(arguments, timeout)
    if done.status:
        raise LunError(f"'{' '.join(arguments)}' failed: {told(done)}")
    return done.output


def told(done: Done) -> str:
    """Why a command failed, as one line of plain text, because it may repeat untrusted text from a copy."""
    return (
        plain(" ".join((done.errors or done.output).split()))[-TOLD:]
        or f"exit status {done.status}, and no reason given"
    )


def spawn(arguments: list[str], log: str, descriptors: tuple[int, ...] = (), **variables: str) -> int:
    """Start a program that outlives this process, with the file ``log`` as its output. Returns its process id.

    It gets ``descriptors`` numbered from FIRST_DESCRIPTOR on.
    """
    command = [program(arguments[0]), *arguments[1:]]
    return int(orphans.spawn_orphan(command, log, environment(**variables), inherited=descriptors))
