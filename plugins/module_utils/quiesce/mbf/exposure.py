# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether other users of this machine could learn the password.

MBF takes it as an argument, and on Linux every user can read the arguments of every process in /proc, unless /proc is
mounted with ``hidepid``. So this tries it: can an unprivileged user read the arguments of a process of this user?
"""

from __future__ import annotations

import os
import re

from ...host.errors import OptionError
from ...host.mounts import Mount, current
from .settings import ARGUMENT, REFUSE, WARN, Settings, readable_by_others

NOBODY = 65534
REMEDY = (
    "mount /proc with hidepid=invisible (in /etc/fstab: 'proc /proc proc defaults,hidepid=invisible 0 0'), give the "
    "password by 'password_by' stdin or session_file, or accept it with 'on_exposed_password: warn'"
)
_HIDEPID = re.compile(r"(?:^|,)hidepid=([^,]+)")
_HIDING = ("1", "2", "4", "noaccess", "invisible", "ptraceable")


def check_policy(policy: str) -> str:
    """Return ``policy``, or raise OptionError if it is invalid."""
    if policy not in (REFUSE, WARN):
        raise OptionError(f"mbf: 'on_exposed_password' must be {REFUSE} or {WARN}, not '{policy}'")
    return policy


def problems(settings: Settings) -> list[str]:
    """Why other users could read the password, each with its remedy; empty if only this user and root can."""
    found = []
    path = settings.secret_file
    if path and _readable_by_others(path):
        found.append(f"other users may read or write {path}, which contains the password: 'chmod 600 {path}'")
    if settings.password_by == ARGUMENT and arguments_show():
        found.append(f"every user of this machine can read the password in MBF's arguments: {REMEDY}")
    return found


def _readable_by_others(path: str) -> bool:
    try:
        return readable_by_others(path)
    except OSError as error:
        raise OptionError(f"mbf: {path}, which must contain the password, cannot be read: {error.strerror}") from error


def arguments_show() -> bool:
    """Whether another user can read the arguments of this user's processes."""
    if os.geteuid() == 0:
        return _nobody_can_read(f"/proc/{os.getpid()}/cmdline")
    return not _hidden_by_mount()


def _nobody_can_read(path: str) -> bool:
    """Try it in a process that has dropped its privileges."""
    child = os.fork()
    if child == 0:
        status = 2
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            status = 1 if _can_read(path) else 0
        finally:
            os._exit(status)
    # If it could not be tried, it counts as readable.
    return os.waitpid(child, 0)[1] != 0


def _can_read(path: str) -> bool:
    try:
        with open(path, "rb") as stream:
            return bool(stream.read(1))
    except OSError:
        return False


def _hidden_by_mount() -> bool:
    """The guarantee of the mount options of /proc, for a user who cannot switch to another one."""
    return hidden_by(current())


def hidden_by(mounts: list[Mount]) -> bool:
    """Whether /proc hides other users' processes; of several mounts the last one counts."""
    options = [mount.options for mount in mounts if mount.point == "/proc"]
    match = _HIDEPID.search(options[-1]) if options else None
    return bool(match and match.group(1) in _HIDING)
