# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset serve``: a saveset as a block device, without restoring it first."""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import signal
import typing as t

from .. import memory
from ..commit import SavesetInfo
from ..lease import SERVE
from . import server
from .access import add_repository, find_saveset, open_repository
from .listener import Listener, add_listener, check_listener, make_listener
from .nbdplugin import encode_order
from .output import saveset_text, say, size_text, warn
from .usage import Commands, UsageError, add_command, add_saveset

_DETAILS = """
The saveset is served over NBD by nbdkit, from the repository as it is: nothing is restored first, and a read takes what
it touches and no more. Every chunk is proven before a byte of it is given out. On Debian:
  apt install nbdkit nbdkit-plugin-python

By default it is reached at a unix socket in a folder that only you can enter. With --listen it is reached over TCP,
with TLS and a pre-shared key; whoever has the key can read the volume. Without TLS only a loopback address is allowed.

With --cow it can be written: what is written is kept in memory, never reaches the repository, and is gone when the
command ends. Databases and journalling filesystems mostly need that to be opened. Nothing of the volume touches a disk,
unless --scratch names a folder on one.

It runs until Ctrl-C or SIGTERM, and leaves nothing behind.

Example:
  isb-saveset serve fs1/m --cow --socket /run/fs1-m.sock
  isb-saveset serve fs1/m:isb-20261123T021500Z-4f1c2a --listen 192.0.2.7 --tls-psk /root/fs1-m.psk
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "serve", run, "show a saveset as a block device, over NBD", _DETAILS)
    add_saveset(parser)
    add_listener(parser)
    layers = parser.add_argument_group("between the saveset and its reader")
    layers.add_argument("--cow", action="store_true", help="let it be written, without touching the repository")
    layers.add_argument("--readahead", action="store_true", help="read ahead where reads are sequential")
    layers.add_argument("--cache", metavar="SIZE", help="keep up to so much of what was read, like 4G")
    layers.add_argument(
        "--scratch",
        metavar="FOLDER",
        help="where --cow and --cache keep what they keep, in clear (default: in memory, such as /dev/shm)",
    )
    add_repository(parser)


def run(options: argparse.Namespace) -> int:
    """Serve a saveset until told to end."""
    check_listener(options)
    layers = _layers(options)
    program = server.find_nbdkit()
    repository = open_repository(options)
    repository.require_reading()
    info = find_saveset(repository, options.saveset).info
    order = encode_order(repository, info, options.readahead)
    try:
        with _signals_raise(), server.private_folder() as folder, contextlib.ExitStack() as cleanup:
            cleanup.enter_context(repository.reading(SERVE, info))
            listener = make_listener(options, folder)
            if options.socket:
                cleanup.callback(_remove, listener.socket)
            process = server.start(program, folder, listener, layers, order)
            cleanup.callback(server.stop, process)
            say(_instructions(info, listener, options.cow))
            raise server.ended(process.wait())
    except _Ended:
        warn("ended; nothing is served any more")
        return 0


def _layers(options: argparse.Namespace) -> server.Layers:
    """What is between the saveset and its reader.  Raises UsageError, InvalidValue."""
    cache = memory.parse_size(options.cache) if options.cache else 0
    if not cache and not options.cow:
        return server.Layers()
    scratch = options.scratch or memory.folder()
    if not scratch:
        raise UsageError(
            "--cow and --cache",
            "this machine has no filesystem in memory that you may write to",
            "Mount a tmpfs, and name it with --scratch",
        )
    if not os.path.isdir(scratch):
        raise UsageError(f"--scratch {scratch}", "it is no folder", "Name one that is there")
    if not memory.is_in_memory(scratch):
        warn(
            f"{scratch}: it is on a disk. What is read and written stands there in clear, and can be found there "
            "afterwards, too. Without --scratch it stays in memory"
        )
    elif cache > memory.room(scratch) // 2:
        raise UsageError(
            f"--cache {options.cache}",
            f"only {size_text(memory.room(scratch) // 2)} of memory can be had for it",
            "Ask for less, or name a folder on a disk with --scratch",
        )
    return server.Layers(options.cow, cache, scratch)


class _Ended(BaseException):
    """A signal told us to end; no error, so no handler of errors shall catch it."""


@contextlib.contextmanager
def _signals_raise() -> t.Iterator[None]:
    """Let the signals that end programs raise _Ended once; whatever comes then does not disturb the cleaning up."""
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


def _instructions(info: SavesetInfo, listener: Listener, writable: bool) -> str:
    uri = shlex.quote(listener.uri)
    only = "" if writable else " -r"
    lines = [
        f"Serving {saveset_text(info)}",
        f"{size_text(info.size)}, {'writable, changes are lost at the end' if writable else 'read-only'}",
        "",
        f"  {listener.uri}",
        "",
    ]
    if listener.psk:
        lines += [
            f"The key is in {listener.psk}. Copy it to the client by a safe way, and name it there in the URI.",
            "",
        ]
    lines += ["Ways to use it, in another terminal, as root:", ""]
    if not listener.psk:
        place = f"-unix {shlex.quote(listener.socket)}" if listener.socket else f"{listener.address} {listener.port}"
        lines += [
            "  a block device        (Debian: nbd-client)",
            f"    modprobe nbd && nbd-client {place} /dev/nbd0 -block-size 512{'' if writable else ' -readonly'}",
            "    end: nbd-client -d /dev/nbd0",
        ]
    lines += [
        "  a loop device         (Debian: libnbd-bin)",
        f"    mkdir -p /run/isb && nbdfuse{only} /run/isb/volume {uri} &",
        f"    losetup --find --show{only} /run/isb/volume",
        "    end: losetup -d /dev/loopN; umount /run/isb",
        "  a copy                (Debian: libnbd-bin)",
        f"    nbdcopy --progress {uri} /dev/TARGET",
    ]
    if not listener.psk:
        mode = "" if writable else ",readonly=on"
        lines += [
            "  a virtual machine     (Debian: qemu-system)",
            f"    qemu-system-x86_64 ... -drive {shlex.quote(f'file={listener.uri},format=raw,if=virtio{mode}')}",
        ]
    lines += ["", f"Ctrl-C, or SIGTERM to process {os.getpid()}, ends it."]
    return "\n".join(lines)


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
