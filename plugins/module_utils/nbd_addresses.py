# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of NBD exports over TCP: made of their parts, and told from paths and from those of other hosts."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, urlsplit

USER = "openisb"
#: What an export may be called.
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def address_of(host, port, name, tls):
    """The address of the export ``name``. ``host``: a name or a number of IPv4 or IPv6."""
    place = "[{}]".format(quote(host, safe=":")) if ":" in host else host
    return "{}{}:{}/{}".format(f"nbds://{USER}@" if tls else "nbd://", place, port, name)


def check_of_host(address, host):
    """Raise ValueError unless ``address`` is of an export of ``host`` and can mean nothing else, as no path can."""
    try:
        parts = urlsplit(address)
        there = parts.scheme in ("nbd", "nbds") and unquote(parts.hostname or "").lower() == host.lower()
        plain = not parts.query and not parts.fragment and NAME.fullmatch(parts.path[1:])
        same = there and plain and address == address_of(host, parts.port, parts.path[1:], parts.scheme == "nbds")
    except ValueError:
        same = False
    if not same:
        raise ValueError(f"{address!r} is no address of an NBD export of {host}, the host that it is to be of")
