# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a saveset is served: a unix socket, or an address with TLS and a pre-shared key."""

from __future__ import annotations

import socket
import urllib.parse
from dataclasses import dataclass

from ..io.nbd_uri import in_uri

_ANY = ("0.0.0.0", "::")


@dataclass(frozen=True)
class Endpoint:
    """Where to serve: ``socket`` is a path, or else ``address`` and ``port``.

    ``psk`` is the file with the TLS key, ``user`` the name that the key has in it.
    """

    socket: str = ""
    address: str = ""
    port: int = 0
    psk: str = ""
    user: str = ""

    def arguments(self) -> list[str]:
        """nbdkit's arguments for it."""
        if self.socket:
            return ["--unix", self.socket, "--tls=off"]
        tls = ["--tls=require", f"--tls-psk={self.psk}"] if self.psk else ["--tls=off"]
        return ["--ipaddr", self.address, "--port", str(self.port), *tls]

    @property
    def uri(self) -> str:
        """The URI that clients on this machine connect to."""
        if self.socket:
            return f"nbd+unix:///?socket={urllib.parse.quote(self.socket)}"
        name = socket.gethostname() if self.address in _ANY else self.address
        host = in_uri(name)
        if not self.psk:
            return f"nbd://{host}:{self.port}/"
        return f"nbds://{self.user}@{host}:{self.port}/?tls-psk-file={urllib.parse.quote(self.psk)}"
