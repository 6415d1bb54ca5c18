# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Escapes untrusted names and texts so that they are safe to show.

Data from a copy may contain anything: terminal escape sequences, lines that look like a log's own, characters that
reverse the text direction. Runs on every host: standard library only, Python 3.8 or newer.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

OBEYED = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode categories of characters that are invisible but have an effect: controls, formats, surrogates, line ends."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def plain(text: str, kept: str = "") -> str:
    """A text in which every character that has an effect on a reader, terminal or log is escaped, such as ``\\x1b``.

    ``kept``: characters that stay as they are. Bytes that are not Unicode, as Python finds them in file names, are
    escaped as well, so that the text can be stored as UTF-8.
    """
    if text.isascii():  # the fast path, for nearly all texts
        return _CONTROL.sub(lambda found: found[0] if found[0] in kept else _written(found[0]), text)
    return "".join(
        sign if sign in kept or unicodedata.category(sign) not in OBEYED else _written(sign) for sign in text
    )


def plain_all(value: Any, kept: str = "") -> Any:
    """The same value (dicts, lists and scalars, as in JSON) with every text in it made plain, keys included."""
    if isinstance(value, dict):
        return {plain_all(key, kept): plain_all(item, kept) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_all(item, kept) for item in value]
    return plain(value, kept) if isinstance(value, str) else value


def said(output: bytes) -> str:
    """The output of another program, in whatever encoding, as one plain line."""
    return plain(" ".join(output.decode("utf-8", "surrogateescape").split()))


def _written(sign: str) -> str:
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is not Unicode
        number -= 0xDC00
    if number < 0x100:
        return _SHORT.get(sign) or f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
