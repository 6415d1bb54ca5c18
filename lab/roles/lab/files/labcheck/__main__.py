# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks copies of all volumes of the lab's file servers: filesystems, databases, and whether they are from one moment.

Reads a JSON document from standard input: ``images`` (server to volume to path of the copy), ``gtm_dist``, ``routines``
(folder of LABCHECK.m), ``scratch`` (folder that may be emptied and filled). Prints the report as JSON:

    one_point_in_time   whether the copies agree with each other, and each with itself
    sound               whether all filesystems and databases are clean
    violations          list of contradictions to one_point_in_time (see cross_check)
    servers             per server: volumes (path, filesystem, clean, said), database (clean, said), and its progress

The copies themselves are never changed.

With ``--mounted`` it is a check of a drill: it reads the input that openisb.backup.recovery_check gives to its
commands, and checks the databases on the mounts of all servers. The other settings are arguments. It prints the same
report, and a line that summarizes it. Its exit status is 0 only for one point in time and sound databases, 2 for
anything else, and 1 if the check could not be done.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from typing import Any

import copies
import cross_check
import judgement
import mounted
from command import CheckError
from database_check import Database


def check(asked: dict[str, Any]) -> dict[str, Any]:
    """Check all servers and return the report."""
    servers, states = {}, {}
    for server, volumes in sorted(asked["images"].items()):
        scratch = copies.fresh_folder(asked["scratch"])
        try:
            servers[server], states[server] = check_server(server, volumes, asked, scratch)
        finally:
            shutil.rmtree(scratch)
    return judgement.report(servers, states)


def check_server(server: str, volumes: dict[str, str], asked: dict[str, Any], scratch: str) -> tuple[Any, Any]:
    """Check one server; return its part of the report and the state of its database."""
    checked, database = {}, None
    for name, path in sorted(volumes.items()):
        checked[name], found = copies.check(path, scratch)
        database = found or database
    if not database:
        where = ", ".join(volumes.values())
        raise CheckError(f"{server}: none of its copies holds {copies.DATABASE}: {where}")
    integrity, told = Database(database, asked["gtm_dist"], asked["routines"]).check()
    return {"volumes": checked, "database": integrity}, cross_check.parse(told)


def check_mounted(arguments: argparse.Namespace) -> int:
    """Check what a drill has mounted; return the exit status."""
    for name in ("gtm_dist", "scratch"):
        if not getattr(arguments, name):
            raise CheckError(f"--{name.replace('_', '-')} is needed with --mounted")
    report = mounted.check(json.load(sys.stdin), arguments.gtm_dist, arguments.routines, arguments.scratch)
    json.dump(report, sys.stdout)
    print(flush=True)
    print(judgement.sentence(report), file=sys.stderr)
    return 0 if judgement.good(report) else 2


def parse_arguments() -> argparse.Namespace:
    """Parse the command line."""
    beside = os.path.join(os.path.dirname(os.path.dirname(os.path.realpath(__file__))), "m/src")
    parser = argparse.ArgumentParser(prog="check", description="Checks copies of the lab's volumes.")
    parser.add_argument("--mounted", action="store_true", help="check what a drill has mounted")
    dist = os.environ.get("gtm_dist")  # noqa: SIM112  # GT.M's name for it
    parser.add_argument("--gtm-dist", default=dist, help="GT.M's folder (default: $gtm_dist)")
    parser.add_argument("--routines", default=beside, help=f"folder of LABCHECK.m (default: {beside})")
    parser.add_argument(
        "--scratch", default=os.environ.get("OPENISB_SCRATCH"), help="folder for copies (default: $OPENISB_SCRATCH)"
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    try:
        if arguments.mounted:
            return check_mounted(arguments)
        report = check(json.load(sys.stdin))
    except CheckError as error:
        print(error, file=sys.stderr)
        return 1
    json.dump(report, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
