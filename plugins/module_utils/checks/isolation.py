# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shuts off the process of one check, and takes all rights from the programs that work on a copy.

What a check mounts, shares in memory, starts or serves is its own, and goes with it. The content of a copy is hostile:
a program that reads it may come to run its writer's code, which then has a user that owns nothing here, no
capabilities, no way to get more, and nobody to talk to.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
from typing import Callable, NamedTuple

from .errors import CheckFailed

PR_SET_PDEATHSIG, PR_CAPBSET_DROP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 24, 36, 38
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x08000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 2, 4, 8, 32, 4096, 0x4000, 1 << 19
HARMLESS = MS_NOSUID | MS_NODEV | MS_NOEXEC

MOUNTS, SHARED_MEMORY, PROCESSES, NETWORK = "mounts", "shared memory", "processes", "network"
LAST_CAPABILITY = "/proc/sys/kernel/cap_last_cap"


class User(NamedTuple):
    """Who a program runs as, by numbers."""

    uid: int
    gid: int


NOBODYS = User(65530, 65530)
"""A user that no distribution, systemd or container gives to anybody: nothing on a host belongs to it."""


def shut_off(network: bool) -> list[str]:
    """Shut off this process, and all that it starts, as far as this user and this host allow.

    Mounts: its own are seen by nobody else and end with it; those that the host takes away go here too. Shared memory:
    its own, so that a copied database cannot be taken for the one whose shared memory it names. Processes: what is
    forked from here on sees itself and what it starts, and all of it ends with the first that is forked (see
    ``enter``). Network, unless ``network``: none at all. Processes that lose their parent become children of this one.
    Returns what is not shut off.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shared = [] if _own_mounts(libc) else [MOUNTS]
    shared += [] if libc.unshare(CLONE_NEWIPC) == 0 else [SHARED_MEMORY]
    shared += [] if not shared and libc.unshare(CLONE_NEWPID) == 0 else [PROCESSES]  # /proc needs mounts of its own
    if not network:
        shared += [] if libc.unshare(CLONE_NEWNET) == 0 else [NETWORK]
    return shared


def enter() -> None:
    """To be called by the first process that is forked once processes are shut off. Raises CheckFailed.

    It ends with its parent, and all others with it; /proc tells of these alone.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    mount("proc", "/proc", HARMLESS, "proc")


def _own_mounts(libc: ctypes.CDLL) -> bool:
    if libc.unshare(CLONE_NEWNS) != 0:
        return False
    mount(None, "/", MS_REC | MS_SLAVE)
    return True


def mount(source: str | None, target: str, flags: int, kind: str | None = None, options: str | None = None) -> None:
    """mount(2). Raises CheckFailed."""
    words = [None if word is None else os.fsencode(word) for word in (source, target, kind, options)]
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(words[0], words[1], words[2], ctypes.c_ulong(flags), words[3]) != 0:
        why = os.strerror(ctypes.get_errno())
        raise CheckFailed(f"{target} cannot be mounted for this check alone, on mounts of its own: {why}")


def bind(source: str, target: str) -> None:
    """Show a file or folder at another place as well, where nothing of it is a device or is run. Raises CheckFailed."""
    mount(source, target, MS_BIND)
    mount(None, target, MS_REMOUNT | MS_BIND | HARMLESS)


def confinement(user: User | None) -> Callable[[], None]:
    """What a program's process calls last before the program begins: it gives up all rights for good.

    ``user`` is None where this process is nobody's but an ordinary user's, who stays who he is.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    capabilities = range(_last_capability() + 1)

    def confine() -> None:
        os.umask(0o077)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if user is not None:
            for capability in capabilities:
                libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
            os.setgroups([])
            os.setresgid(user.gid, user.gid, user.gid)
            os.setresuid(user.uid, user.uid, user.uid)  # and with it go the capabilities of the process
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")

    return confine


def _last_capability() -> int:
    with open(LAST_CAPABILITY, encoding="ascii") as stream:
        return int(stream.read())


def may(user: User | None, path: str, how: int) -> bool:
    """Whether a program without rights may use a path, in the way of ``os.access``."""
    confine = confinement(user)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            confine()
            status = 0 if os.access(path, how) else 1
        finally:
            os._exit(status)
    return os.waitpid(pid, 0)[1] == 0
