# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The code that runs inside nbdkit: the callbacks of its python plugin, for one saveset.

nbdkit's script only imports everything from here.  The order, that is what to serve and the secret, comes as JSON
through a pipe whose descriptor is named on nbdkit's command line, so that no other process can see it.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import json
import os
import sys
import traceback
import typing as t

from ..base.errors import SavesetError
from ..base.extent import HOLE, ZERO
from ..base.memory import keep_private
from ..collect.lease import SERVE
from ..format.commit import SavesetInfo
from ..keys.secret import Secret
from ..repository import Repository
from ..store.registry import open_store
from .serving import ServedSaveset

if t.TYPE_CHECKING:
    nbdkit: t.Any
else:
    try:
        import nbdkit
    except ImportError:  # outside nbdkit, where only encode_order() is used
        nbdkit = None

__all__ = [
    "API_VERSION",
    "can_cache",
    "can_extents",
    "can_multi_conn",
    "cache",
    "cleanup",
    "config",
    "extents",
    "get_ready",
    "get_size",
    "is_rotational",
    "open",
    "pread",
    "thread_model",
]

API_VERSION = 2

_served: dict[str, t.Any] = {}
_lease = contextlib.ExitStack()


def encode_order(repository: Repository, info: SavesetInfo, readahead: bool, lease: bool = False) -> bytes:
    """Encode what to serve, and the key to it, for the pipe.  Raises WrongSecret (a write-only key).

    :param readahead: whether to read ahead where reads are sequential.
    :param lease: whether nbdkit itself holds a lease on what the saveset uses; else its caller does.
    """
    secret = repository.reading_secret()
    order = {
        "location": repository.location,
        "master": base64.b64encode(secret.master).decode() if secret.master else None,
        "unencrypted": secret.unencrypted,
        "volume": info.volume,
        "saveset": info.id,
        "readahead": readahead,
        "lease": lease,
    }
    return json.dumps(order).encode()


def config(key: str, value: str) -> None:
    """Take the one parameter, the pipe's descriptor, and read the order from it."""
    if key != "order-fd":
        raise ValueError(f"unknown parameter {key}")
    keep_private()
    with os.fdopen(int(value), "rb") as pipe:
        _served["order"] = json.loads(pipe.read())


def get_ready() -> None:
    """Open the saveset before any client can connect."""
    _tell_errors_in_one_line()
    order = _served.pop("order")
    master = order["master"]
    secret = Secret(master=base64.b64decode(master)) if master else Secret(unencrypted=order["unencrypted"])
    repository = Repository.open(open_store(order["location"]), secret)
    repository.on_warning = _warn
    saveset = repository.find(order["volume"], saveset_id=order["saveset"])
    if order["lease"]:
        _lease.enter_context(repository.reading(SERVE, saveset.info))
    _served["saveset"] = ServedSaveset(saveset, order["readahead"])


def cleanup() -> None:
    """Release the lease; when nbdkit is killed instead, others can see that its lease is dead."""
    if "saveset" in _served:
        _served["saveset"].close()
    _lease.close()


def thread_model() -> int:
    """Requests may run in parallel: the heavy work releases Python's global lock."""
    return int(nbdkit.THREAD_MODEL_PARALLEL)


def open(readonly: bool) -> ServedSaveset:  # noqa: A001  # nbdkit's name for it
    """Open a connection; all connections read the same saveset."""
    saveset: ServedSaveset = _served["saveset"]
    return saveset


def get_size(saveset: ServedSaveset) -> int:
    """The volume's size."""
    return saveset.size


def can_multi_conn(saveset: ServedSaveset) -> bool:
    """Allow several connections: nothing ever changes, so all see the same data."""
    return True


def is_rotational(saveset: ServedSaveset) -> bool:
    """Say yes, because sequential reads are cheaper."""
    return True


def can_cache(saveset: ServedSaveset) -> int:
    """Say yes to cache requests: what was read ahead stays in memory for a while."""
    return int(nbdkit.CACHE_NATIVE)


def can_extents(saveset: ServedSaveset) -> bool:
    """Say yes: holes and zeros are known."""
    return True


def pread(saveset: ServedSaveset, buffer: bytearray, offset: int, flags: int) -> None:
    """Fill the buffer; every chunk is verified before any of its bytes are returned."""
    try:
        saveset.read_into(offset, buffer)
    except Exception:
        nbdkit.set_error(errno.EIO)
        raise


def cache(saveset: ServedSaveset, count: int, offset: int, flags: int) -> None:
    """Read ahead."""
    saveset.prepare(offset, count)


def extents(saveset: ServedSaveset, count: int, offset: int, flags: int) -> list[tuple[int, int, int]]:
    """List the holes, zeros and data of a range, as (offset, length, NBD's flags)."""
    types = {HOLE: nbdkit.EXTENT_HOLE | nbdkit.EXTENT_ZERO, ZERO: nbdkit.EXTENT_ZERO}
    found = []
    for extent in saveset.extents(offset, count):
        found.append((extent.offset, extent.length, types.get(extent.kind, 0)))
        if flags & nbdkit.FLAG_REQ_ONE:
            break
    return found


def _warn(text: str) -> None:
    """Write a line to stderr, which is that of isb-saveset."""
    sys.stderr.write(f"isb-saveset: {text}\n")
    sys.stderr.flush()


def _tell_errors_in_one_line() -> None:
    """Keep nbdkit from printing the traceback of a SavesetError, whose text already says what to do."""
    whole = traceback.format_exception

    def plain(kind: t.Any, error: t.Any = None, trace: t.Any = None, **options: t.Any) -> list[str]:
        return [f"{error}"] if isinstance(error, SavesetError) else whole(kind, error, trace, **options)

    traceback.format_exception = plain  # type: ignore[assignment]
