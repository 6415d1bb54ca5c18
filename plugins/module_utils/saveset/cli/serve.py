# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset serve``: serve a saveset as a block device, without restoring it first."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import typing as t

from ..base import memory
from ..format.commit import SavesetInfo
from ..io import blocks
from ..serve import server
from ..serve.endpoint import Endpoint
from .access import add_repository, find_saveset, open_repository
from .endpoint import add_endpoint, check_endpoint, make_endpoint
from .output import saveset_text, say, size_text, warn
from .usage import Commands, UsageError, add_command, add_saveset

_DETAILS = """
nbdkit serves the saveset over NBD straight from the repository: nothing is restored first, and a read fetches only what
it touches. Every chunk is verified before any of its bytes are returned. On Debian:
  apt install nbdkit nbdkit-plugin-python

By default it is served at a unix socket in a folder that only you can enter. With --listen it is served over TCP,
with TLS and a pre-shared key; anyone who has the key can read the volume. Without TLS only a loopback address is
allowed.

With --cow it is writable: writes are kept in memory, never reach the repository, and are lost when the command ends.
Most databases and journalling filesystems can only be opened this way. Nothing of the volume is written to a disk,
unless --scratch names a folder on one.

It runs until Ctrl-C or SIGTERM, and leaves nothing behind.

Example:
  isb-saveset serve fs1/m --cow --socket /run/fs1-m.sock
  isb-saveset serve fs1/m:isb-20261123T021500Z-4f1c2a --listen 192.0.2.7 --tls-psk /root/fs1-m.psk
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "serve", run, "serve a saveset as a block device, over NBD", _DETAILS)
    add_saveset(parser)
    add_endpoint(parser)
    layers = parser.add_argument_group("between the saveset and its reader")
    layers.add_argument("--cow", action="store_true", help="make it writable, without changing the repository")
    layers.add_argument("--readahead", action="store_true", help="read ahead where reads are sequential")
    layers.add_argument("--cache", metavar="SIZE", help="keep up to this much of what was read, like 4G")
    layers.add_argument(
        "--scratch",
        metavar="FOLDER",
        help="where --cow and --cache store their data, in clear (default: in memory, such as /dev/shm)",
    )
    add_repository(parser)


def run(options: argparse.Namespace) -> int:
    """Serve a saveset until a signal ends it."""
    check_endpoint(options)
    layers = _layers(options)
    program = server.find_nbdkit()
    repository = open_repository(options)
    repository.require_reading()
    info = find_saveset(repository, options.saveset).info
    try:
        with _signals_raise():
            server.serve(
                program,
                repository,
                info,
                readahead=options.readahead,
                layers=layers,
                endpoint_in=lambda folder: make_endpoint(options, folder),
                started=lambda endpoint: say(_instructions(info, endpoint, options.cow)),
            )
    except _Ended:
        warn("ended; nothing is served any more")
        return 0


def _layers(options: argparse.Namespace) -> server.Layers:
    """The filters between the saveset and its reader.  Raises UsageError, InvalidValue."""
    cache = memory.parse_size(options.cache) if options.cache else 0
    if not cache and not options.cow:
        return server.Layers()
    scratch = options.scratch or memory.folder()
    if not scratch:
        raise UsageError(
            "--cow and --cache",
            "this machine has no filesystem in memory that you can write to",
            "Mount a tmpfs, and name it with --scratch",
        )
    if not os.path.isdir(scratch):
        raise UsageError(f"--scratch {scratch}", "it is not a folder", "Name one that exists")
    if not memory.is_in_memory(scratch):
        warn(
            f"{scratch}: it is on a disk. What is read and written is stored there in clear, and can still be found "
            "there afterwards. Without --scratch it stays in memory"
        )
    elif cache > memory.room(scratch) // 2:
        raise UsageError(
            f"--cache {options.cache}",
            f"only {size_text(memory.room(scratch) // 2)} of memory is available for it",
            "Ask for less, or name a folder on a disk with --scratch",
        )
    return server.Layers(options.cow, cache, scratch)


class _Ended(BaseException):
    """A signal ended the command; not an error, so no error handler may catch it."""


@contextlib.contextmanager
def _signals_raise() -> t.Iterator[None]:
    """Make the signals that end programs raise _Ended once; later ones do not disturb the cleanup."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def end(_number: int, _frame: t.Any) -> t.NoReturn:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)
        raise _Ended

    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _instructions(info: SavesetInfo, endpoint: Endpoint, writable: bool) -> str:
    sector = blocks.told(info.metadata, "sector_size") or 512
    uri = shlex.quote(endpoint.uri)
    only = "" if writable else " -r"
    lines = [
        f"Serving {saveset_text(info)}",
        f"{size_text(info.size)}, {'writable, changes are lost at the end' if writable else 'read-only'}",
        "",
        f"  {endpoint.uri}",
        "",
    ]
    if endpoint.psk:
        lines += [
            f"The key is in {endpoint.psk}. Copy it to the client securely, and name the copy in the URI there.",
            "",
        ]
    lines += ["Ways to use it, in another terminal, as root:", ""]
    if not endpoint.psk:
        place = f"-unix {shlex.quote(endpoint.socket)}" if endpoint.socket else f"{endpoint.address} {endpoint.port}"
        lines += [
            "  a block device        (Debian: nbd-client)",
            f"    modprobe nbd && nbd-client {place} /dev/nbd0 -block-size {sector}{'' if writable else ' -readonly'}",
            "    end: nbd-client -d /dev/nbd0",
        ]
    lines += [
        "  a loop device         (Debian: libnbd-bin)",
        f"    mkdir -p /run/isb && nbdfuse{only} /run/isb/volume {uri} &",
        f"    losetup --find --show --sector-size {sector}{only} /run/isb/volume",
        "    end: losetup -d /dev/loopN; umount /run/isb",
        "  a copy                (Debian: libnbd-bin)",
        f"    nbdcopy --progress {uri} /dev/TARGET",
    ]
    if not endpoint.psk:
        mode = "" if writable else ",readonly=on"
        lines += [
            "  a virtual machine     (Debian: qemu-system)",
            f"    qemu-system-x86_64 ... -drive {shlex.quote(f'file={endpoint.uri},format=raw,if=virtio{mode}')}",
        ]
    lines += ["", f"Ctrl-C, or SIGTERM to process {os.getpid()}, ends it."]
    return "\n".join(lines)
