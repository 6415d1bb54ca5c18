# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say where a saveset is served."""

from __future__ import annotations

import argparse
import ipaddress
import os
import secrets
import socket
import urllib.parse

from ..base import memory
from ..io.nbd_uri import PORT as DEFAULT_PORT
from ..serve.endpoint import Endpoint
from .credentials import read_file
from .usage import UsageError

_USER = "isb"


def add_endpoint(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where to serve."""
    where = parser.add_argument_group("where it is served")
    place = where.add_mutually_exclusive_group()
    place.add_argument("--socket", metavar="PATH", help="a unix socket (default: one in a new temporary folder)")
    place.add_argument(
        "--listen", metavar="ADDRESS[:PORT]", help=f"an address of this host; the port is {DEFAULT_PORT} by default"
    )
    where.add_argument(
        "--tls-psk", metavar="FILE", help="a file with a line USER:KEY, the key in hex; created if it does not exist"
    )
    where.add_argument("--no-tls", action="store_true", help="no TLS; only for a loopback address")


def check_endpoint(options: argparse.Namespace) -> None:
    """Raise UsageError when these options do not go together."""
    if options.no_tls and not options.listen:
        raise UsageError("--no-tls", "a unix socket has no TLS", "Leave it out, or use --listen")
    if options.tls_psk and (options.no_tls or not options.listen):
        raise UsageError("--tls-psk", "TLS is for --listen, without --no-tls", "Leave it out, or use --listen")


def make_endpoint(options: argparse.Namespace, folder: str) -> Endpoint:
    """Where the options say to serve; ``folder`` is private, for a socket or a key that they do not name.

    Raises UsageError.
    """
    if not options.listen:
        path = os.path.abspath(options.socket) if options.socket else os.path.join(folder, "socket")
        if os.path.lexists(path):
            raise UsageError(path, "it exists already", "Name another path, or remove it if no server uses it")
        return Endpoint(socket=path)
    address, port = split_address(options.listen)
    if options.no_tls:
        _check_loopback(address)
        return Endpoint(address=address, port=port)
    if not options.tls_psk and not memory.is_in_memory(folder):
        raise UsageError(
            "--listen", "this machine has no filesystem in memory for the TLS key", "Name a file for it with --tls-psk"
        )
    psk = os.path.abspath(options.tls_psk) if options.tls_psk else os.path.join(folder, "psk")
    if not os.path.exists(psk):
        _make_key(psk)
    user = read_file(psk).partition(b":")[0].decode(errors="replace")
    return Endpoint(address=address, port=port, psk=psk, user=user)


def split_address(text: str) -> tuple[str, int]:
    """Address and port from ``ADDRESS``, ``ADDRESS:PORT``, ``[ADDRESS]:PORT`` or an IPv6 address alone."""
    bare = text.count(":") > 1 and not text.startswith("[")
    try:
        parts = urllib.parse.urlsplit(f"//[{text}]" if bare else f"//{text}")
        address, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError:
        address, port = None, 0
    if not address:
        raise UsageError(f"--listen {text}", "it is not an address with a port", "Write it like 192.0.2.7:10809")
    return address, port


def _check_loopback(address: str) -> None:
    try:
        numbers = {entry[4][0] for entry in socket.getaddrinfo(address, 0, proto=socket.IPPROTO_TCP)}
    except socket.gaierror as error:
        raise UsageError(f"--listen {address}", f"it is unknown ({error})", "Name an address of this host") from error
    if not all(ipaddress.ip_address(number).is_loopback for number in numbers):
        raise UsageError(
            "--no-tls", f"anyone who can reach {address} could read the volume", "Leave it out, or use 127.0.0.1"
        )


def _make_key(path: str) -> None:
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as stream:
            stream.write(f"{_USER}:{secrets.token_hex(32)}\n")
    except OSError as error:
        raise UsageError(path, f"it cannot be created ({error.strerror})", "Name another file") from error
