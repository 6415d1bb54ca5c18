# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset export``: a saveset's bytes to standard output."""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import sys
import time
import typing as t

from ..base.parallel import default_workers
from ..base.progress import Progress
from ..collect.lease import EXPORT
from ..repository import Saveset
from .access import add_repository, find_saveset, open_repository
from .output import Meter, saveset_text, warn
from .usage import Commands, UsageError, add_command, add_quiet, add_saveset, add_workers

_STEP = 4 << 20

_DETAILS = """
Writes the volume's raw bytes, holes as zeros, for use in a pipe. Check the exit status of every command in the pipe:
when one is not 0, the output is incomplete.

Example:
  isb-saveset export fs1/m | ssh newhost 'dd of=/dev/sdb bs=4M conv=fsync'
"""


def add(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(commands, "export", run, "write a saveset's bytes to standard output", _DETAILS)
    add_saveset(parser)
    add_workers(parser)
    add_quiet(parser)
    add_repository(parser)


def run(options: argparse.Namespace) -> int:
    """Export a saveset."""
    output = sys.stdout.buffer
    if output.isatty():
        raise UsageError("standard output", "it is a terminal", "Send it to a pipe or a file")
    repository = open_repository(options)
    saveset = find_saveset(repository, options.saveset)
    warn(f"exporting {saveset_text(saveset.info)}")
    begun, done = time.monotonic(), 0
    with repository.reading(EXPORT, saveset.info), Meter(options.quiet) as meter:
        for data in _blocks(saveset, options.workers or default_workers()):
            output.write(data)
            done += len(data)
            meter(Progress(bytes_total=saveset.size, bytes_done=done, elapsed_s=time.monotonic() - begun))
    return 0


def _blocks(saveset: Saveset, workers: int) -> t.Iterator[bytes]:
    """The volume's bytes in order, read ahead by a few threads."""
    ahead: collections.deque[concurrent.futures.Future[bytes]] = collections.deque()
    pool = concurrent.futures.ThreadPoolExecutor(workers)
    try:
        for offset in range(0, saveset.size, _STEP):
            ahead.append(pool.submit(saveset.read, offset, _STEP))
            if len(ahead) > workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
