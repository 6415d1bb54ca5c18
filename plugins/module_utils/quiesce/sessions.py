# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps a database's own client program running and has it run one statement at a time.

The client reads statements from a pipe and prints their results, each followed by a marker. It must be started such
that a failed statement ends it. A statement that times out or is cancelled ends it as well: whatever goes wrong, the
session is gone afterwards, and the server releases what it held.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import select
import subprocess
import threading
from typing import IO, cast

from ..host import children
from ..host.clock import Deadline
from ..host.errors import DriverError

GRACE = 1.0
"""Seconds that a client may take to end on its own after its input was closed."""

POLL = 0.05
READ_SIZE = 65536


class SessionEnded(DriverError, Exception):  # named twice, as pylint looks into no class of another folder
    """The session has ended."""


class SessionTimedOut(SessionEnded):
    """It has ended because a statement took too long."""


class Session:
    """One client process: ``arguments``, with only ``environment``. Raises SessionEnded."""

    def __init__(self, arguments: list[str], environment: dict[str, str]) -> None:
        self._mark = f"end-{secrets.token_hex(8)}"
        self._why = ""
        try:
            self._process = children.start(
                arguments,
                environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                bufsize=0,
            )
        except OSError as error:
            raise SessionEnded(f"{arguments[0]} cannot be started: {error.strerror}") from error
        self._to = cast(IO[bytes], self._process.stdin)
        self._from = cast(IO[bytes], self._process.stdout)

    @property
    def pid(self) -> int:
        """The client's process id."""
        return self._process.pid

    def run(self, statement: str, seconds: float, cancelled: threading.Event | None = None) -> list[str]:
        """The lines that a statement returned. Raises SessionEnded if it failed, timed out or was cancelled."""
        deadline = Deadline(seconds)
        if self.why():
            raise SessionEnded(f"'{statement}' was not run: {self.why()}")
        with contextlib.suppress(BrokenPipeError):  # the output before its end is still to be read
            self._to.write(f"{statement};\nSELECT '{self._mark}';\n".encode())
        end = f"{self._mark}\n".encode()
        output = b""
        while not output.endswith(end):
            piece = self._read(min(POLL, deadline.left()))
            if piece == b"":
                raise self._ended(statement, _words(output) or f"the client ended with status {self._status()}")
            output += piece or b""
            if cancelled is not None and cancelled.is_set():
                raise self._ended(statement, "it was cancelled")
            if piece is None and not deadline.left():
                raise SessionTimedOut(str(self._ended(statement, f"it took longer than {seconds:.3g} s")))
        return output[: -len(end)].decode("utf-8", "replace").split("\n")[:-1]

    def _read(self, seconds: float) -> bytes | None:
        """What arrives within that time: None for nothing, empty bytes at the end of the output."""
        poll = select.poll()
        poll.register(self._from, select.POLLIN)
        return os.read(self._from.fileno(), READ_SIZE) if poll.poll(seconds * 1000) else None

    def why(self) -> str:
        """Why the session has ended; empty while it runs."""
        if not self._why and self._process.poll() is not None:
            said = _words(self._left_behind())
            self._why = said or f"the client was ended by somebody else (status {self._process.returncode})"
        return self._why

    def _left_behind(self) -> bytes:
        """The unread output of a client that has ended."""
        output = b""
        while piece := self._read(0):
            output += piece
        return output

    def close(self) -> None:
        """End the client, if it still runs: first by closing its input."""
        self._why = self._why or "it was closed"
        self._to.close()
        self._status()
        self._from.close()

    def _ended(self, statement: str, why: str) -> SessionEnded:
        self._why = f"'{statement}' failed: {why}"
        self._process.kill()
        self.close()
        return SessionEnded(self._why)

    def _status(self) -> int | None:
        """Wait for the client's end, kill it if needed, and return its exit status."""
        try:
            return self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            self._process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(GRACE)
        return None


def _words(output: bytes) -> str:
    """A client's output as one line, without the statement that it repeats before an error."""
    lines = output.decode("utf-8", "replace").split("\n")
    errors = [number for number, line in enumerate(lines) if line.startswith("ERROR")]
    return " ".join(line.strip() for line in lines[errors[0] if errors else 0 :] if line.strip())
