"""Runs the long suites of tests, as many as there is time for, and says which were left out.

Usage: ci_suites.py STARTED, the time (seconds since 1970) at which continuous integration began.

First come the suites whose paths have changed lately, then the others. Both begin at another suite with each commit, so
that every suite has its turn. None is started after the 45th minute: the longest one takes half as long again on a slow
machine, and must end in time too. The first suite that fails ends it.

What has changed are the paths of all commits made in the four hours before the newest one, or, with CI_BASE=COMMIT in
the environment, of those since that commit. Where history does not reach back that far, everything counts as changed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

LAST_START = 45 * 60
"""Seconds after the beginning after which no suite is started."""
RECENT = 4 * 3600
"""Seconds before the newest commit whose commits are looked at."""


class Suite(NamedTuple):
    """A target of the Makefile, and the paths that it is there for: a file, or what a path begins with."""

    target: str
    paths: tuple[str, ...]


COMMON = (".ci/", "Makefile", "requirements-dev.txt", "scripts/test", "scripts/lab", "roles/lab/")
"""Paths that every suite depends on."""

SUITES = (
    Suite(
        "test-faults",
        (
            "playbooks/isb.yml",
            "playbooks/recover.yml",
            "plugins/action/",
            "plugins/module_utils/jobs.py",
            "plugins/module_utils/journal.py",
            "plugins/module_utils/quiesce/",
            "plugins/module_utils/verdict.py",
            "plugins/modules/hold.py",
            "plugins/modules/quiesce",
            "roles/block_backup/",
            "roles/cleanup/",
            "roles/consistency_point/",
            "roles/prepare/",
            "tests/faults/",
        ),
    ),
    Suite(
        "test-idr",
        (
            "playbooks/idr",
            "playbooks/restore.yml",
            "playbooks/standby.yml",
            "plugins/module_utils/checks/",
            "plugins/module_utils/idr/",
            "plugins/modules/idr",
            "plugins/modules/recovery_check.py",
            "plugins/modules/restore_target.py",
            "plugins/modules/saveset_export.py",
            "roles/idr",
            "roles/restore/",
            "roles/standby/",
            "tests/idr/",
        ),
    ),
    Suite(
        "slow",
        (
            "plugins/module_utils/lun_changes.py",
            "plugins/module_utils/saveset/",
            "tests/integration/",
            "tests/lab/",
            "tests/unit/",
        ),
    ),
    Suite(
        "molecule-mbf",
        (
            "molecule/mbf/",
            "playbooks/mbf_census.yml",
            "plugins/inventory/mbf_census.py",
            "plugins/module_utils/census.py",
            "plugins/module_utils/quiesce/drivers/mbf.py",
            "plugins/module_utils/quiesce/mbf/",
            "plugins/modules/mbf.py",
            "roles/ring/",
        ),
    ),
    Suite(
        "test-vm",
        (
            "plugins/module_utils/idr/luns",
            "plugins/modules/idr_lun",
            "scripts/idr-vm",
            "tests/unit/idr/luns/",
        ),
    ),
)


def in_order(suites: Sequence[Suite], changed: Sequence[str] | None, commits: int) -> list[Suite]:
    """All suites, in the order in which to run them.

    ``changed``: paths; None where that is not known, which is as if all had changed. ``commits``: their number, which
    decides whose turn it is.
    """
    turn = commits % len(suites)
    rotated = [*suites[turn:], *suites[:turn]]
    touched = [suite for suite in rotated if changed is None or _is_touched(suite, changed)]
    return touched + [suite for suite in rotated if suite not in touched]


def _is_touched(suite: Suite, changed: Sequence[str]) -> bool:
    return any(path.startswith(COMMON + suite.paths) for path in changed)


def run_in_time(
    suites: Sequence[Suite], run: Callable[[Suite], bool], elapsed: Callable[[], float]
) -> tuple[bool, list[Suite]]:
    """Run suites until one fails or it is too late to start another. Returns whether all that ran passed, and the
    suites that were not started.

    ``run``: whether a suite passed. ``elapsed``: seconds since continuous integration began.
    """
    for number, suite in enumerate(suites):
        if elapsed() > LAST_START:
            return True, list(suites[number:])
        if not run(suite):
            return False, list(suites[number + 1 :])
    return True, []


def history() -> tuple[list[str] | None, int]:
    """The paths that have changed lately, and the number of commits. Without a history, as in an archive of the files,
    nothing is known of either.
    """
    try:
        return changed_paths(), int(_git("rev-list", "--count", "HEAD"))
    except (OSError, subprocess.CalledProcessError) as error:
        _say(f"the history cannot be read ({error}): everything counts as changed")
        return None, 0


def changed_paths() -> list[str] | None:
    """The paths that have changed lately; None where history does not reach back that far."""
    base = os.environ.get("CI_BASE") or _commit_before(RECENT)
    if not base:
        return None
    # With -z, as names are quoted otherwise; without renames, as a path that is gone has changed too.
    return _git("diff", "--name-only", "--no-renames", "-z", f"{base}..HEAD").split("\0")[:-1]


def _commit_before(seconds: int) -> str:
    newest = int(_git("log", "-1", "--format=%ct"))
    return _git("rev-list", "-1", f"--before={newest - seconds}", "HEAD").strip()


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


def _make(suite: Suite) -> bool:
    return subprocess.run(["make", suite.target], stdin=subprocess.DEVNULL, check=False).returncode == 0


def _say(text: str) -> None:
    print(f"==> {text}", flush=True)


def main() -> int:
    """Run the suites; 1 where one failed."""
    os.chdir(Path(__file__).resolve().parents[1])
    started = float(sys.argv[1])
    suites = in_order(SUITES, *history())
    _say(f"long suites, in this order: {', '.join(suite.target for suite in suites)}")
    passed, left = run_in_time(suites, _make, lambda: time.time() - started)
    if left:
        why = f"it was after minute {LAST_START // 60}" if passed else "another one failed"
        _say(f"left out, as {why}: {', '.join(suite.target for suite in left)}. `make test-all` runs everything")
    else:
        _say("no suite was left out")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
