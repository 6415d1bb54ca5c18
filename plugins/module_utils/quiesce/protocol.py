# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The protocol of a holder's socket: one request per connection, one line of JSON in each direction.

Request: ``{"run_id": text, "command": "freeze" | "thaw" | "status" | "end"}``. Response: the hold's status, with ``ok``
and, if that is false, ``error``.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from typing import Any, Iterator

from .errors import HolderError

LIMIT = 65536
"""Maximum length of a line in bytes."""


class BadRequest(HolderError):
    """The message is not a valid request."""


def encode(message: dict[str, Any]) -> bytes:
    """A message as one line."""
    return json.dumps(message, sort_keys=True).encode() + b"\n"


class Lines:
    """Assembles one line from its pieces."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, piece: bytes) -> dict[str, Any] | None:
        """The message, once the line is complete; None until then. Raises BadRequest."""
        self._data += piece
        line, newline, _rest = self._data.partition(b"\n")
        if newline:
            return decode(line)
        if len(self._data) > LIMIT:
            raise BadRequest(f"the line is longer than {LIMIT} bytes")
        return None


def decode(line: bytes) -> dict[str, Any]:
    """One line as a message. Raises BadRequest."""
    try:
        message = json.loads(line)
    except ValueError as error:
        raise BadRequest(f"not a line of JSON: {error}") from error
    if not isinstance(message, dict):
        raise BadRequest("not a JSON object")
    return message


def parse_request(message: dict[str, Any], run_id: str) -> str:
    """The command in a request for the holder of ``run_id``. Raises BadRequest."""
    if message.get("run_id") != run_id:
        raise BadRequest(f"this is the holder of run {run_id}, not of run {message.get('run_id')}")
    command = message.get("command")
    if not isinstance(command, str):
        raise BadRequest("the request has no 'command'")
    return command


@contextlib.contextmanager
def short_path(path: str) -> Iterator[str]:
    """A short name for the socket at ``path``, because a socket's name has at most 107 bytes."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{os.path.basename(path)}"
    finally:
        os.close(folder)


def listen(path: str) -> socket.socket:
    """A listening socket at ``path``, replacing whatever was there. Only the same user can connect.

    No other thread may create files meanwhile, because threads share the umask.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        with short_path(path) as name:
            listener.bind(name)
    finally:
        os.umask(before)
    listener.listen(16)
    listener.setblocking(False)
    return listener


def call(path: str, run_id: str, command: str, timeout: float) -> dict[str, Any]:
    """Send a request to the holder at ``path``; return its response. Raises HolderError after ``timeout`` seconds."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection, short_path(path) as name:
            connection.settimeout(timeout)
            connection.connect(name)
            connection.sendall(encode({"run_id": run_id, "command": command}))
            with connection.makefile("rb") as stream:
                line = stream.readline(LIMIT)
    except OSError as error:
        raise HolderError(f"the holder of run {run_id} does not answer at {path}: {error}") from error
    if not line:
        raise HolderError(f"the holder of run {run_id} ended without an answer to '{command}'")
    return decode(line)
