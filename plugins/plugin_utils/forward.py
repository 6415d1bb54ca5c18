# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A way to a holder's socket that needs no process when it is used: OpenSSH forwards it over a connection that is open.

Works where a host is reached by Ansible's ssh plugin with ControlPersist, its sshd allows the forwarding of sockets,
and the login user may use the holder's socket. Elsewhere there is no way, and a program has to be run on the host.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import time
from typing import Any

from ansible.utils.path import unfrackpath

OPEN_TIMEOUT = 5.0  # seconds


class Forward:
    """Forwards ``local``, a path that is free, to the socket ``remote`` on the host of an open connection."""

    def __init__(self, connection: Any, local: str, remote: str) -> None:
        self.local = local
        self._command = _command(connection)
        self._what = f"{local}:{remote}"

    def open(self) -> bool:
        """Open the way; whether that worked."""
        return bool(self._command) and self._control("forward")

    def close(self) -> None:
        """Close the way. Fine where there is none."""
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
        """The holder's answer to a line; None where none came, and it has to be asked in another way."""
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
    """How to talk to the connection's control socket; empty where it has none."""
    if connection.transport != "ssh" or not connection.control_path:
        return []
    path = connection.control_path % {"directory": unfrackpath(connection.control_path_dir)}
    # The control socket alone is talked to: no configuration is read that could change where it is.
    return [connection.get_option("ssh_executable"), "-F", "none", "-o", f"ControlPath={path}", connection.host]
