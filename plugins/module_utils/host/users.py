# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs programs as another user of this server."""

from __future__ import annotations

import os
import pwd

from .errors import DriverError

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def as_user(arguments: list[str], user: str | None) -> list[str]:
    """The command line that runs ``arguments`` as ``user``; None: as the current user. Raises DriverError."""
    if user is None:
        return arguments
    entry = _entry(user)
    if entry.pw_uid == os.geteuid():
        return arguments
    if os.geteuid() != 0:
        raise DriverError(f"{arguments[0]} cannot be run as {user}: only root can run programs as another user")
    return ["setpriv", f"--reuid={entry.pw_uid}", f"--regid={entry.pw_gid}", "--init-groups", *arguments]


def environment_of(user: str | None) -> dict[str, str]:
    """The environment of a program that runs as ``user``. Raises DriverError."""
    environment = {"HOME": "/", "LC_ALL": "C", "PATH": PATH}
    if user is not None:
        entry = _entry(user)
        environment.update(HOME=entry.pw_dir, USER=user, LOGNAME=user)
    return environment


def _entry(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(user)
    except KeyError as error:
        raise DriverError(f"there is no user {user} on this server: correct the driver's 'user'") from error
