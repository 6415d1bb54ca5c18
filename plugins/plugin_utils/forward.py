# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A connection to a holder's socket that starts no process when it is used: OpenSSH forwards it over an open session.

Works where a host is reached by Ansible's ssh plugin with ControlPersist, its sshd allows socket forwarding, and the
login user may use the holder's socket. Elsewhere a program has to be run on the host instead.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from ansible.utils.path import unfrackpath

OPEN_TIMEOUT = 5.0  # seconds

LONGEST_SOCKET = 107
"""The most bytes in a socket's path."""

PREFIX = "isb-"
ROOM = len(f"/{PREFIX}12345678/123456")
"""Bytes added to the folder: a subfolder, and a socket per server."""

# Other characters might have a meaning for ssh: a variable, or the end of the path.
_PLAIN = re.compile(r"/[A-Za-z0-9/._+-]*\Z")

NO_FOLDER = (
    "the controller has no folder for sockets: none of {} is writable and has a path of at most "
    f"{LONGEST_SOCKET - ROOM} plain characters. So a program on each server must talk to its holder, which makes the "
    "freeze window longer: set TMPDIR to a folder with a short path"
)


def places() -> list[str]:
    """Folders in which temporary folders may be created, the best one first."""
    found = ["/tmp", "/var/tmp", f"/run/user/{os.geteuid()}", "/dev/shm"]
    with contextlib.suppress(FileNotFoundError):
        found.insert(0, tempfile.gettempdir())
    return list(dict.fromkeys(found))


def place() -> str:
    """The first of them in which a socket's path is short enough; empty where there is none."""
    return next(filter(_is_fit, places()), "")


def place_problem() -> str:
    """Why holders can only be asked through a program; empty where sockets can be forwarded."""
    return "" if place() else NO_FOLDER.format(", ".join(places()))


def _is_fit(path: str) -> bool:
    short = len(os.fsencode(path)) + ROOM <= LONGEST_SOCKET
    return short and bool(_PLAIN.match(path)) and os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)


@contextlib.contextmanager
def sockets_folder() -> Iterator[str]:
    """A temporary folder for the local sockets; empty where there can be none."""
    parent = place()
    if not parent:
        yield ""
        return
    with tempfile.TemporaryDirectory(prefix=PREFIX, dir=parent) as folder:
        yield folder


class Forward:
    """Forwards ``local``, an unused path, to the socket ``remote`` on the host of an open connection."""

    def __init__(self, connection: Any, local: str, remote: str) -> None:
        self.local = local
        self._command = _command(connection)
        self._what = f"{local}:{remote}"

    def open(self) -> bool:
        """Start forwarding. Returns whether that worked."""
        return bool(self._command) and self._control("forward")

    def close(self) -> None:
        """Stop forwarding; idempotent."""
        if self._command:
            self._control("cancel")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.local)

    def _control(self, what: str) -> bool:
        options, host = self._command[:-1], self._command[-1]
        try:
            done = subprocess.run(
                [*options, "-O", what, "-L", self._what, host],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=OPEN_TIMEOUT,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return False
        return done.returncode == 0

    def ask(self, request: bytes, timeout: float) -> dict[str, Any] | None:
        """The holder's answer to a line; None where none came, and it has to be asked through a program."""
        end = time.monotonic() + timeout
        line = b""
        try:
            with socket.socket(socket.AF_UNIX) as way:
                way.settimeout(timeout)
                way.connect(self.local)
                way.sendall(request)
                while not line.endswith(b"\n"):
                    way.settimeout(max(end - time.monotonic(), 0.001))
                    piece = way.recv(65536)
                    if not piece:
                        return None
                    line += piece
            return dict(json.loads(line))
        except (OSError, ValueError):
            return None


def _command(connection: Any) -> list[str]:
    """The command that talks to the connection's control socket; empty where it has none."""
    if connection.transport != "ssh" or not connection.control_path:
        return []
    path = connection.control_path % {"directory": unfrackpath(connection.control_path_dir)}
    # Only the control socket is needed, so no configuration is read that could change its path.
    return [connection.get_option("ssh_executable"), "-F", "none", "-o", f"ControlPath={path}", connection.host]
