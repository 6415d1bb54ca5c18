# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Isolates the process of a check, and drops all privileges of the programs that work on a copy.

A check has its own mounts, shared memory, processes and network, which end with it. The content of a copy is untrusted:
a program that reads it may be made to run an attacker's code. That code then runs as a user that owns nothing here,
with no capabilities, no way to gain any, and nobody to talk to.
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
    """The user and group ids that a program runs as."""

    uid: int
    gid: int


NOBODYS = User(65530, 65530)
"""A user id that no distribution, systemd or container assigns: it owns nothing on a host."""


def shut_off(network: bool) -> list[str]:
    """Isolate this process and all that it starts, as far as this user and this host allow.

    Mounts: its own are invisible to others and end with it; unmounts on the host take effect here too. Shared memory:
    its own, so that a copied database cannot attach to the shared memory that it names. Processes: those forked from
    now on see only each other, and all end with the first one (see ``enter``). Network, unless ``network``: none.
    Orphans become children of this process. Returns what is not isolated.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shared = [] if _own_mounts(libc) else [MOUNTS]
    shared += [] if libc.unshare(CLONE_NEWIPC) == 0 else [SHARED_MEMORY]
    shared += [] if not shared and libc.unshare(CLONE_NEWPID) == 0 else [PROCESSES]  # /proc needs its own mounts
    if not network:
        shared += [] if libc.unshare(CLONE_NEWNET) == 0 else [NETWORK]
    return shared


def enter() -> None:
    """Called by the first process forked after processes were isolated. Raises CheckFailed.

    It ends with its parent, and all others end with it; /proc shows only these.
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
        raise CheckFailed(f"{target} cannot be mounted in the check's own mount namespace: {why}")


def bind(source: str, target: str) -> None:
    """Bind-mount a file or directory, with no devices and no executables. Raises CheckFailed."""
    mount(source, target, MS_BIND)
    mount(None, target, MS_REMOUNT | MS_BIND | HARMLESS)


def confinement(user: User | None) -> Callable[[], None]:
    """A function that a program's process calls just before the program starts: it drops all privileges permanently.

    ``user`` is None if this process is an unprivileged user's; then the user does not change.
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
            os.setresuid(user.uid, user.uid, user.uid)  # this also drops the process's capabilities
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "no_new_privs")

    return confine


def _last_capability() -> int:
    with open(LAST_CAPABILITY, encoding="ascii") as stream:
        return int(stream.read())


def may(user: User | None, path: str, how: int) -> bool:
    """Whether an unprivileged program may use a path, like ``os.access``."""
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
