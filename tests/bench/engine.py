# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One operation of the saveset engine, as a process of its own.

    engine.py REPOSITORY create
    engine.py REPOSITORY backup --number N [--level L] [--changes FILE] IMAGE
    engine.py REPOSITORY restore TARGET
    engine.py REPOSITORY verify
    engine.py REPOSITORY prune

The last line of its output is a JSON object of figures.  Backup N is of source ``bench-N``; FILE holds the extents that
changed since backup N-1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import sys
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "module_utils"))

from saveset import repository
from saveset.backup import changes, request
from saveset.collect import retention
from saveset.io import claim, source, target
from saveset.keys import secret
from saveset.store import registry

SECRET = secret.Secret(b"only a benchmark")
VOLUME = "bench/image"
Figures = dict[str, t.Any]


def create(arguments: argparse.Namespace) -> Figures:
    """Make an empty repository."""
    repository.Repository.create(registry.open_store(arguments.repository), SECRET)
    return {}


def backup(arguments: argparse.Namespace) -> Figures:
    """Back the image up, only what changed where that is told."""
    repo = _open(arguments)
    with source.open_source(arguments.path) as opened:
        told = None
        if arguments.changes:
            extents = json.loads(Path(arguments.changes).read_text())
            told = changes.Changes(f"bench-{arguments.number - 1}", opened.size, [tuple(item) for item in extents])
        saveset = repo.backup(
            opened,
            request.BackupRequest(
                volume=VOLUME,
                run_id=f"bench-{arguments.number}",
                time=datetime.datetime.now(datetime.UTC),
                verdict="crash-consistent",
                level=arguments.level,
                source_id=f"bench-{arguments.number}",
                changes=told,
                cache_dir=f"{arguments.repository}.cache",
            ),
        )
    origin = saveset.info.origin
    if told is not None and origin["method"] != "changed":
        sys.exit(f"the changed extents were not used: {origin}")
    return {**saveset.stats.as_dict(), "origin": origin}


def restore(arguments: argparse.Namespace) -> Figures:
    """Restore the latest saveset over a file."""
    saveset = _open(arguments).find(VOLUME)
    with target.open_target(arguments.path, saveset.size, held=claim.hold(arguments.path, create=True)) as opened:
        return dict(saveset.restore(opened).as_dict())


def verify(arguments: argparse.Namespace) -> Figures:
    """Decrypt and rehash everything."""
    report = _open(arguments).verify(depth="full")
    if not report.ok:
        sys.exit(f"the benchmark's own repository does not verify: {report.problems}")
    return {"bytes": report.bytes, "seconds": report.seconds}


def prune(arguments: argparse.Namespace) -> Figures:
    """Keep the latest saveset only."""
    report = _open(arguments).prune(retention.Policy(last=1, consistent=False))
    if report.waiting:
        sys.exit(f"not all of it could be removed: {report.waiting}")
    return {"forgotten": len(report.forgotten), "bytes_freed": report.bytes_freed}


def _open(arguments: argparse.Namespace) -> repository.Repository:
    return repository.Repository.open(registry.open_store(arguments.repository), SECRET)


def main() -> None:
    """Parse the command line, do it, print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("repository")
    commands = parser.add_subparsers(required=True)
    for function in (create, backup, restore, verify, prune):
        command = commands.add_parser(function.__name__, help=function.__doc__)
        command.set_defaults(function=function)
        if function is backup:
            command.add_argument("--number", type=int, required=True)
            command.add_argument("--level", type=int, default=1)
            command.add_argument("--changes")
        if function in (backup, restore):
            command.add_argument("path")
    arguments = parser.parse_args()
    print(json.dumps(arguments.function(arguments)))


if __name__ == "__main__":
    main()
