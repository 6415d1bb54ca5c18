# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The content of an export that only tests the connection: bytes that both ends derive from its name."""

from __future__ import annotations

import hashlib

SIZE = 64 * 1024
#: Seconds after which such an export ends, if nobody ends it earlier.
LIFETIME = 120


def content(name: str) -> bytes:
    """The bytes that the export ``name`` serves."""
    block = hashlib.sha512(name.encode()).digest()
    return block * (SIZE // len(block))
