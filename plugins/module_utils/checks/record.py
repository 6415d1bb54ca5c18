# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check leaves on record: its commands, the end of their output and the hash of all of it, and files."""

from __future__ import annotations

import codecs
import hashlib
from typing import Any

from ..plain import plain

KEPT = 8000
"""Characters of the output that are kept: what was said last."""


LINES = "\n\t"
"""What stays of the signs that are obeyed."""


class Output:
    """Text that comes in pieces of bytes: the end of it, and the SHA-256 of all of it in UTF-8, as it is shown."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._hash = hashlib.sha256()
        self.tail = ""

    def add(self, piece: bytes, final: bool = False) -> str:
        """Take a piece, and return it as text. ``final``: no more of this command's output follows."""
        text = self._decoder.decode(piece, final)
        self.say(text)
        return text

    def say(self, text: str) -> None:
        """Take a text. What a terminal would obey in it is written out."""
        text = plain(text, LINES)
        self._hash.update(text.encode("utf-8"))
        self.tail = (self.tail + text)[-KEPT:]

    def sha256(self) -> str:
        """The hash of all that came until now."""
        return self._hash.hexdigest()


class Record:
    """One check, as its result tells it. Each command is told in the output before what it printed."""

    def __init__(self) -> None:
        self.output = Output()
        self.commands: list[dict[str, Any]] = []
        self.files: list[dict[str, Any]] = []

    def begin(self, argv: list[str], shown: str) -> dict[str, Any]:
        """A command starts; the dict that is returned is to be completed."""
        command = {"argv": list(argv), "rc": None, "seconds": None}
        self.commands.append(command)
        self.say(f"$ {shown}")
        return command

    def say(self, line: str) -> None:
        """A line of its own."""
        self.output.say(("" if self.output.tail[-1:] in ("", "\n") else "\n") + line + "\n")

    def as_dict(self) -> dict[str, Any]:
        """The part of the result that is known. Names and texts of the copy are in it as they are."""
        return {
            "output": self.output.tail,
            "output_sha256": self.output.sha256(),
            "commands": self.commands,
            "files": self.files,
        }
