# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The source of a LUN: an NBD export, or a file or device of this host."""

from __future__ import annotations

import os
import socket
import stat
from urllib.parse import urlsplit

from ..saveset.base.errors import TargetError
from ..saveset.io import nbd_uri
from ..saveset.io.claim import hold
from ..saveset.io.nbd_uri import Export
from .errors import LunError

# Number of keepalive probes on a silent connection before it fails.
PROBES = 3


def is_uri(source: str) -> bool:
    """Whether a source is an export, not a path."""
    return "://" in source


def parse(source: str) -> Export:
    """The export that a URI names."""
    try:
        export = nbd_uri.parse(source)
    except ValueError as error:
        raise LunError(f"{without_secrets(source)} has an invalid port: {error}") from error
    if export is None:
        raise LunError(
            f"{without_secrets(source)} is not a source of a LUN: use nbd://HOST:PORT/NAME, nbds://, or a path"
        )
    return export


def without_secrets(source: str) -> str:
    """A source that is safe to show and store: without a password and a query string."""
    if not is_uri(source):
        return source
    parts = urlsplit(source)
    place = parts.netloc.rpartition("@")
    user = place[0].partition(":")[0]
    return f"{parts.scheme}://{user + place[1]}{place[2]}{parts.path}"


def check_path(path: str) -> bool:
    """Whether a path is a block device, not a file. Raises LunError if it is neither."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise LunError(f"the source {path} cannot be used: {error.strerror}") from error
    if stat.S_ISBLK(mode):
        return True
    if not stat.S_ISREG(mode):
        raise LunError(f"the source {path} is neither a file nor a block device: set it to one of these")
    return False


def check_unused(path: str) -> None:
    """Refuse a source that will be written directly and is already in use."""
    try:
        hold(path).close()
    except TargetError as error:
        raise LunError(str(error)) from error


def connect(export: Export, timeout: float) -> socket.socket:
    """A connection to an export that fails once its peer has been silent for ``timeout`` seconds.

    libnbd would wait forever. So it gets a connection made here with the kernel's own limits: a timeout for sent data,
    and keepalives on an idle connection.
    """
    try:
        connection = socket.create_connection((export.host, export.port), timeout=timeout)
    except OSError as error:
        raise LunError(
            f"{export.host} does not answer at port {export.port} ({error}): make sure that the export {export.name} "
            "is up and that no firewall blocks this host"
        ) from error
    seconds = max(1, round(timeout / (PROBES + 1)))
    connection.settimeout(None)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, seconds),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, PROBES),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(timeout * 1000)),
        (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    ):
        connection.setsockopt(level, option, value)
    return connection


def arguments_of_export(export: Export, descriptor: int, key: int | None) -> list[str]:
    """nbdkit's arguments for a connected export; ``key`` is an open file with the export's key."""
    words = ["nbd", f"socket-fd={descriptor}", f"export={export.name}"]
    if not export.tls:
        return [*words, "tls=off"]
    words.append("tls=require")
    if export.user:
        words.append(f"tls-username={export.user}")
    if key is not None:
        words.append(f"tls-psk=/proc/self/fd/{key}")
    return words


def key_file(export: Export, psk: str) -> int:
    """An open anonymous file in memory with the export's key: it is on no disk, and gone once it is closed."""
    descriptor = os.memfd_create("psk")
    os.write(descriptor, f"{export.user}:{psk}\n".encode())
    return descriptor
