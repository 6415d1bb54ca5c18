# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parses and writes the addresses of NBD exports over TCP.

Standard library only, Python 3.8: this also runs on storage and DR hosts.
"""

from __future__ import annotations

import typing as t
from urllib.parse import parse_qs, quote, unquote, urlsplit

PORT = 10809


class Export(t.NamedTuple):
    """An NBD export.  ``user`` is the user of its key, ``options`` is what follows the ``?``."""

    host: str
    port: int
    name: str
    tls: bool
    user: str
    options: dict[str, list[str]]


def parse(uri: str) -> Export | None:
    """The export that an ``nbd://`` or ``nbds://`` address names; None if it is not an address over TCP.

    Raises ValueError for an invalid port.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("nbd", "nbds") or not parts.hostname:
        return None
    port = parts.port or PORT
    options = parse_qs(parts.query, keep_blank_values=True)
    user = unquote(parts.username or "")
    return Export(unquote(parts.hostname), port, unquote(parts.path[1:]), parts.scheme == "nbds", user, options)


def in_uri(host: str) -> str:
    """A host name or IP address as written in a URI: IPv6 addresses in brackets."""
    return "[{}]".format(quote(host, safe=":")) if ":" in host else host
