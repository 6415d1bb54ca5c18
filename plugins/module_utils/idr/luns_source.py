# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a LUN is made from: an export over NBD, or a file or device of this host."""

from __future__ import annotations

import os
import socket
import stat
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from ..saveset.claim import hold
from ..saveset.errors import TargetError
from .luns_errors import LunError

PORT = 10809
# How often a silent connection is asked whether it is still there, in parts of the time that it may be silent.
PROBES = 3


class Export(NamedTuple):
    """An export over NBD. ``user`` is the one that its key is for."""

    host: str
    port: int
    name: str
    tls: bool
    user: str


def is_uri(source: str) -> bool:
    """Whether a source is an export and not a path."""
    return "://" in source


def parse(source: str) -> Export:
    """The export that a uri names."""
    parts = urlsplit(source)
    if parts.scheme not in ("nbd", "nbds") or not parts.hostname:
        raise LunError(
            f"{without_secrets(source)} is no source of a LUN: give nbd://HOST:PORT/NAME, nbds://, or a path"
        )
    try:
        port = parts.port or PORT
    except ValueError as error:
        raise LunError(f"{without_secrets(source)} has a wrong port: {error}") from error
    name = unquote(parts.path[1:])
    return Export(parts.hostname, port, name, parts.scheme == "nbds", unquote(parts.username or ""))


def without_secrets(source: str) -> str:
    """A source as it may be shown and kept: without a password, and without what follows a '?'."""
    if not is_uri(source):
        return source
    parts = urlsplit(source)
    place = parts.netloc.rpartition("@")
    user = place[0].partition(":")[0]
    return f"{parts.scheme}://{user + place[1]}{place[2]}{parts.path}"


def check_path(path: str) -> bool:
    """Whether a path is a block device and not a file; an error where it is neither."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise LunError(f"the source {path} cannot be used: {error.strerror}") from error
    if stat.S_ISBLK(mode):
        return True
    if not stat.S_ISREG(mode):
        raise LunError(f"the source {path} is neither a file nor a block device: name one that is")
    return False


def check_unused(path: str) -> None:
    """Refuse a file or device that is to be written itself, and that something uses already."""
    try:
        hold(path).close()
    except TargetError as error:
        raise LunError(str(error)) from error


def connect(export: Export, timeout: float) -> socket.socket:
    """A connection to an export that fails once its other end has been silent for ``timeout`` seconds.

    libnbd would wait for ever. So it gets a connection that is made here, with the kernel's own limits: an answer to
    what was sent, and a sign of life where nothing is under way.
    """
    try:
        connection = socket.create_connection((export.host, export.port), timeout=timeout)
    except OSError as error:
        raise LunError(
            f"{export.host} does not answer at port {export.port} ({error}): is the export {export.name} up, and "
            "does a firewall let this host through?"
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
    """An open file with the export's key that is on no disk and has no name: it goes with whoever has it open."""
    descriptor = os.memfd_create("psk")
    os.write(descriptor, f"{export.user}:{psk}\n".encode())
    return descriptor
