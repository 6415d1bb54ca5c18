# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a check: its commands, the end of their output and the hash of all of it, and files."""

from __future__ import annotations

import codecs
import hashlib
from typing import Any

from ..host.plain import plain

KEPT = 8000
"""Characters of the output that are kept, from its end."""


LINES = "\n\t"
"""The control characters that are kept."""


class Output:
    """Text that arrives in pieces of bytes: its end, and the SHA-256 of all of it in UTF-8, as it is shown."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._hash = hashlib.sha256()
        self.tail = ""

    def add(self, piece: bytes, final: bool = False) -> str:
        """Add a piece, and return it as text. ``final``: no more of this command's output follows."""
        text = self._decoder.decode(piece, final)
        self.say(text)
        return text

    def say(self, text: str) -> None:
        """Add a text, with terminal control characters escaped."""
        text = plain(text, LINES)
        self._hash.update(text.encode("utf-8"))
        self.tail = (self.tail + text)[-KEPT:]

    def sha256(self) -> str:
        """The hash of everything so far."""
        return self._hash.hexdigest()


class Record:
    """The record of one check. The output has each command before what it printed."""

    def __init__(self) -> None:
        self.output = Output()
        self.commands: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []

    def begin(self, argv: list[str], shown: str) -> dict[str, Any]:
        """Record the start of a command; the caller completes the returned dict."""
        command = {"argv": list(argv), "rc": None, "seconds": None}
        self.commands.append(command)
        self.say(f"$ {shown}")
        return command

    def say(self, line: str) -> None:
        """Add a separate line."""
        self.output.say(("" if self.output.tail[-1:] in ("", "\n") else "\n") + line + "\n")

    def as_dict(self) -> dict[str, Any]:
        """The record's part of the result. Names and texts from the copy are unchanged in it."""
        return {
            "output": self.output.tail,
            "output_sha256": self.output.sha256(),
            "commands": self.commands,
            "files": self.files,
        }
