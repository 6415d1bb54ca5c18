# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The NBD addresses that a module is given, and their keys."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..host.nbd_addresses import KEY, check_of_host

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def require_host(module: AnsibleModule, option: str) -> None:
    """Fail where the address in an option is not that of an export of the given host, or where its key is invalid."""
    try:
        check_export(option, *(module.params[name] for name in (option, "host", "psk")))
    except ValueError as error:
        module.fail_json(msg=str(error))


def check_export(option: str, address: str, host: str | None, key: str | None) -> None:
    """Raise ValueError unless the address in ``option`` is that of an export of ``host``, if given, and has the key."""
    try:
        if host is not None:
            check_of_host(address, host)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
    if key and not (KEY.fullmatch(key) and address.startswith("nbds://")):
        raise ValueError(f"psk: it is not 64 hex digits, or {option} has no nbds:// and so no key")


@contextlib.contextmanager
def with_nbd_key(uri: str, psk: str | None) -> Iterator[str]:
    """Yield the NBD address to use, which names the export's key as a temporary file in this process's memory."""
    if not psk:
        yield uri
        return
    descriptor = os.memfd_create("psk", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"openisb:{psk}\n".encode("ascii"))
        yield f"{uri}?tls-psk-file=/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
