# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connections to NBD exports."""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t

from ..base.deps import require_nbd
from . import nbd_uri

_PSK = "tls-psk-file"


class Connections:
    """Connections to an export, one for each thread that uses it."""

    def __init__(self, uri: str, *contexts: str) -> None:
        """:param contexts: the metadata contexts to ask for, such as ``base:allocation``."""
        self._nbd = require_nbd(uri)
        self._uri = uri
        self._contexts = contexts
        self._local = threading.local()
        self._lock = threading.Lock()
        self._handles: list[t.Any] = []
        #: What libnbd and the system raise.
        self.errors = (self._nbd.Error, OSError, ValueError)

    def own(self) -> t.Any:
        """This thread's libnbd handle, connected.  Raises one of ``errors``."""
        if not hasattr(self._local, "handle"):
            self._local.handle = self._connected()
        return self._local.handle

    def _connected(self) -> t.Any:
        handle = self._nbd.NBD()
        for context in self._contexts:
            handle.add_meta_context(context)
        connect(handle, self._uri)
        with self._lock:
            self._handles.append(handle)
        return handle

    def all(self) -> list[t.Any]:
        """The handles of all threads."""
        with self._lock:
            return list(self._handles)

    def close(self) -> None:
        """Disconnect; what was written must have been flushed."""
        with self._lock:
            handles, self._handles = self._handles, []
        for handle in handles:
            with contextlib.suppress(self._nbd.Error):  # nothing is lost if the server disconnected first
                handle.shutdown()


def connect(handle: t.Any, uri: str) -> None:
    """Connect a libnbd handle to an export.  Raises OSError or libnbd's own error.

    When libnbd connects on its own, it sends the host name (SNI) at the start of TLS.  GnuTLS at the other end rejects
    an IPv6 address as a name and closes the connection.  With a pre-shared key the name is not needed, so libnbd is
    given an existing connection and sends none.  With certificates, the name is needed to verify them.
    """
    handle.set_uri_allow_local_file(True)  # the key of an export with TLS is in a file
    export = nbd_uri.parse(uri)
    if export is None or not export.tls or list(export.options) != [_PSK]:
        handle.connect_uri(uri)
        return
    handle.set_tls(require_nbd(uri).TLS_REQUIRE)
    handle.set_tls_psk_file(export.options[_PSK][0])
    if export.user:
        handle.set_tls_username(export.user)
    handle.set_export_name(export.name)
    connection = socket.create_connection((export.host, export.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    handle.connect_socket(connection.detach())
