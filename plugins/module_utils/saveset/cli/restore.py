# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset restore``: restore a saveset to a device, a file or an NBD export."""

from __future__ import annotations

import argparse
import shlex

from ..base.errors import TargetOccupied
from ..base.progress import RestoreStats
from ..format.commit import SavesetInfo
from ..io.blocks import told
from ..io.source import is_nbd
from ..io.target import open_target
from .access import add_repository, find_saveset, open_repository, protection
from .output import Meter, duration_text, print_json, rate_text, saveset_facts, saveset_text, say, size_text, warn
from .usage import Commands, add_command, add_json, add_quiet, add_saveset, add_workers

_DETAILS = """
The target is a block device, a file, which is created if it does not exist, or a writable NBD export (nbd://...). It is
refused, before a byte is written, when it is mounted, open in another program or otherwise in use, when it is smaller
than the volume, or when it is a disk with larger sectors than the volume's filesystem can use. It is locked until
everything is written.

A target that has content is overwritten only when --overwrite names it: a disk by its WWN or serial number, a device
that has neither (a loop device) by its content, a file by its path and size, an NBD export by its URI. Otherwise it is
refused; the error says what is on it and which identity to name. NBD exports always count as having content.

Every chunk is decrypted and verified before it is written: a restore never writes wrong data. When it fails, the target
is incomplete; --only-changed then resumes it, however it ended, with --overwrite as above.

With --only-changed the target is read first and each chunk on it is verified; only what differs is read from the
repository and written. This reverts a volume, updates a standby, or resumes an interrupted restore.

With --check everything is read back from the target, bypassing the page cache, and compared.

Where the target allows it, reads and writes bypass the page cache in any case.

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
        help="overwrite what the target holds, if this is its identity",
    )
    parser.add_argument("--only-changed", action="store_true", help="write only what differs on the target")
    parser.add_argument("--check", action="store_true", help="read everything back afterwards, and compare it")
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
    warn(f"restoring {saveset_text(saveset.info)} to {options.target}")
    block_size = told(saveset.info.metadata, "block_size")
    opened = open_target(options.target, saveset.size, options.overwrite, block_size=block_size)
    with opened as target, Meter(options.quiet) as meter:
        stats = saveset.restore(
            target,
            only_changed=options.only_changed,
            check=options.check,
            progress=meter,
            workers=options.workers,
        )
    if options.json:
        facts = {"saveset": saveset_facts(saveset.info), "target": options.target, "stats": stats.as_dict()}
        print_json({**facts, "warnings": repository.warnings, **protection(repository)})
    else:
        say(_sentence(saveset.info, options.target, stats))
    return 0


def _sentence(info: SavesetInfo, target: str, stats: RestoreStats) -> str:
    """Say what was done, in one sentence."""
    kept = f", {size_text(stats.bytes_kept)} that were right already" if stats.bytes_compared else ""
    checked = "; all of it was read back and compared" if stats.bytes_checked else ""
    return (
        f"Restored {saveset_text(info)} to {target}: {size_text(stats.bytes_size)} in {duration_text(stats.seconds)} "
        f"({rate_text(stats.bytes_size, stats.seconds)}), of which {size_text(stats.bytes_written)} data, "
        f"{size_text(stats.bytes_zeroed)} holes and zeros{kept}{checked}"
    )
