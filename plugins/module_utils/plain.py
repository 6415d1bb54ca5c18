# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Makes names and texts of strangers fit to be shown.

What comes from a copy may hold whatever its writer wanted: sequences that a terminal obeys, lines that look like a
log's own, letters that turn the rest of a line around. Runs on every host: standard library alone, Python 3.8 or newer.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

OBEYED = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")
"""Unicode's categories of what is not seen but does something: controls, formats, surrogates, ends of lines."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def plain(text: str, kept: str = "") -> str:
    """A text in which all that a reader, a terminal or a log would obey is written out, such as ``\\x1b``.

    ``kept`` are signs that stay as they are. Bytes that are no Unicode, as Python finds them in names of files, are
    written out as well, so that the text can be stored as UTF-8.
    """
    if text.isascii():  # nearly always, and much of it
        return _CONTROL.sub(lambda found: found[0] if found[0] in kept else _written(found[0]), text)
    return "".join(
        sign if sign in kept or unicodedata.category(sign) not in OBEYED else _written(sign) for sign in text
    )


def plain_all(value: Any, kept: str = "") -> Any:
    """The same value (of dicts, lists and scalars, as JSON has them) with every text in it plain, names of keys too."""
    if isinstance(value, dict):
        return {plain_all(key, kept): plain_all(item, kept) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_all(item, kept) for item in value]
    return plain(value, kept) if isinstance(value, str) else value


def _written(sign: str) -> str:
    number = ord(sign)
    if 0xDC80 <= number <= 0xDCFF:  # a byte that is no Unicode
        number -= 0xDC00
    if number < 0x100:
        return _SHORT.get(sign) or f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"
