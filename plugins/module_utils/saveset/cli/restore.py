# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset restore``: a saveset to a device, a file or an NBD export."""

from __future__ import annotations

import argparse
import shlex

from ..errors import TargetOccupied
from ..progress import RestoreStats
from ..source import is_nbd
from ..target import open_target
from .access import add_repository, find_saveset, open_repository, protection
from .output import (
    Meter,
    duration_text,
    print_json,
    rate_text,
    saveset_facts,
    saveset_text,
    say,
    size_text,
    warn,
)
from .usage import Commands, add_command, add_json, add_quiet, add_saveset, add_workers

_DETAILS = """
The target is a block device, a file, which is made where it does not exist, or a writable NBD export (nbd://...). It is
refused, before a byte is written, when it is mounted, open in another program or otherwise in use, or shorter than the
volume; and it is held until all is written.

What has content is written over only where --overwrite names it: a disk by its WWN or serial number, a device that has
neither (a loop device) by its content, a file by its path and size, an NBD export by its URI. Without that it is
refused with what is on it, and the identity to name. NBD exports always count as having content.

Every chunk is decrypted and proven before it is written: a restore never writes wrong bytes as right. When it fails the
target is incomplete; however it ended, --only-changed takes it up where it was, with --overwrite as above.

With --only-changed the target is read first and each chunk on it is proven; only what differs is read from the
repository and written. That reverts a volume, brings a standby up to date, and takes up a restore that was interrupted.

With --check nothing counts as restored that was not read back from the target, past the page cache, and compared.

Where the target allows it, reads and writes go past the page cache by themselves.

Example:
  isb-saveset restore fs1/m /dev/disk/by-id/wwn-0x5000c500a0b1c2d3 --check
  isb-saveset restore fs1/m /dev/sdb --overwrite wwn-0x5000c500a0b1c2d3 --only-changed
  isb-saveset restore fs1/m:isb-20261123T021500Z-4f1c2a /srv/restored/fs1-m.img
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "restore", run, "restore a saveset to a device or file", _DETAILS)
    add_saveset(parser)
    parser.add_argument("target", metavar="TARGET", help="block device, file or NBD URI")
    parser.add_argument(
        "--overwrite",
        action="append",
        default=[],
        metavar="ID",
        help="write over what the target holds, if this is its identity",
    )
    parser.add_argument("--only-changed", action="store_true", help="keep what is right on it, and write what differs")
    parser.add_argument("--check", action="store_true", help="read everything back when all is written, and compare it")
    add_workers(parser)
    add_json(parser)
    add_quiet(parser)
    add_repository(parser)


def run(options: argparse.Namespace) -> int:
    """Restore a saveset."""
    repository = open_repository(options)
    saveset = find_saveset(repository, options.saveset)
    if is_nbd(options.target) and options.target not in options.overwrite:
        raise TargetOccupied(
            options.target,
            "it is an NBD export, and all that it holds would be lost",
            f"Add --overwrite {shlex.quote(options.target)} if that is right",
        )
    if not options.quiet:
        warn(f"restoring {saveset_text(saveset.info)} to {options.target}")
    with open_target(options.target, saveset.size, options.overwrite) as target, Meter(options.quiet) as meter:
        stats = saveset.restore(
            target,
            only_changed=options.only_changed,
            check=options.check,
            progress=meter,
            workers=options.workers,
        )
    if options.json:
        facts = {"saveset": saveset_facts(saveset.info), "target": options.target, "stats": stats.as_dict()}
        print_json({**facts, **protection(repository)})
    else:
        say(_sentence(saveset.volume, options.target, stats))
    return 0


def _sentence(volume: str, target: str, stats: RestoreStats) -> str:
    """What was done, in a sentence."""
    kept = f", {size_text(stats.bytes_kept)} that were right already" if stats.bytes_compared else ""
    checked = "; all of it was read back and compared" if stats.bytes_checked else ""
    return (
        f"Restored {volume} to {target}: {size_text(stats.bytes_size)} in {duration_text(stats.seconds)} "
        f"({rate_text(stats.bytes_size, stats.seconds)}), of it {size_text(stats.bytes_written)} data, "
        f"{size_text(stats.bytes_zeroed)} holes and zeros{kept}{checked}"
    )
