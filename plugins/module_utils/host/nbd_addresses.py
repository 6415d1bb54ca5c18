# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Addresses of NBD exports over TCP: builds them, and distinguishes them from paths and other hosts' addresses."""

from __future__ import annotations

import ipaddress
import re
from typing import Any, Mapping

from ..saveset.io.nbd_uri import in_uri, parse

USER = "openisb"
LONGEST_NAME = 128
#: A valid name of an export.
NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_NAME - 1}}}")

#: The key of an export over TLS, in hex.
KEY = re.compile(r"[0-9a-f]{64}")

#: A valid host name; names in other alphabets have a form in these characters (punycode).
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}")


def address_of(host: str, port: int, name: str, tls: bool) -> str:
    """The address of the export ``name``. ``host``: a host name or an IPv4 or IPv6 address."""
    return "{}{}:{}/{}".format(f"nbds://{USER}@" if tls else "nbd://", in_uri(host), port, name)


def of_host(host: str, variables: Mapping[str, Any]) -> str:
    """The address at which other hosts reach the exports of a host of the inventory, from its variables."""
    return str(variables.get("openisb_data_address", variables.get("ansible_host", host)))


def problem_of(host: str) -> str:
    """Why other hosts cannot connect to ``host``, a host name or IP address, as a text; empty where they can."""
    number, dummy, zone = host.partition("%")
    try:
        found = ipaddress.ip_address(number)
    except ValueError:
        if HOST.fullmatch(host):
            return ""
        return f"'{host}' is neither a host name nor an IPv4 or IPv6 address (without brackets, port or user)"
    if found.version == 6 and (found.is_link_local or zone):
        return f"'{host}' is a link-local address, and the name of the link (the part after %) may differ between hosts"
    if found.is_unspecified or found.is_multicast:
        return f"'{host}' is the address of no host"
    return ""


def check_of_host(address: str, host: str) -> None:
    """Raise ValueError unless ``address`` is unambiguously the address of an export of ``host``, and not a path."""
    try:
        export = parse(address)
        there = export and export.host.lower() == host.lower() and NAME.fullmatch(export.name)
        # It contains nothing but these parts.
        same = export and there and address == address_of(host, export.port, export.name, export.tls)
    except ValueError:
        same = False
    if not same:
        raise ValueError(f"{address!r} is not the address of an NBD export of {host}")
