"""Runs as many of the long test suites as there is time for, and says which were skipped.

Usage: ci_suites.py STARTED, the time (seconds since 1970) at which continuous integration began.

Suites whose paths have changed recently come first, then the others. Both groups start at a different suite with each
commit, so that every suite gets its turn. None is started after the 45th minute, nor one that would not end in time on
this machine, whose speed shows in how long `make test` took. The first suite that fails ends everything.

The changed paths are those of all commits made in the four hours before the newest one, or, with CI_BASE=COMMIT in the
environment, of those since that commit. If history does not reach back that far, everything counts as changed.
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
"""Seconds since the beginning after which no suite is started."""
LAST_END = 85 * 60
"""Seconds since the beginning by which every suite must have ended."""
TEST_TAKES = 14 * 60
"""Seconds that `make test` takes on the machine on which the suites' minutes were measured."""
RECENT = 4 * 3600
"""Commits of this many seconds before the newest one are looked at."""


class Suite(NamedTuple):
    """A target of the Makefile, the paths that it tests, as prefixes, and about how many minutes it takes."""

    target: str
    paths: tuple[str, ...]
    minutes: int = 0


COMMON = (".ci/", "Makefile", "requirements-dev.txt", "scripts/test", "scripts/lab", "lab/")
"""Paths that every suite depends on."""

SUITES = (
    Suite(
        "test-faults",
        (
            "playbooks/isb.yml",
            "playbooks/recover.yml",
            "plugins/action/",
            "plugins/module_utils/host/",
            "plugins/module_utils/journal/",
            "plugins/module_utils/quiesce/",
            "plugins/module_utils/control/verdict.py",
            "plugins/modules/hold.py",
            "plugins/modules/quiesce",
            "roles/block_backup/",
            "roles/cleanup/",
            "roles/consistency_point/",
            "roles/prepare/",
            "roles/recover/",
            "tests/faults/",
        ),
        22,
    ),
    Suite(
        "test-idr",
        (
            "playbooks/idr",
            "playbooks/restore.yml",
            "playbooks/standby.yml",
            "plugins/module_utils/checks/",
            "plugins/module_utils/control/drill/",
            "plugins/module_utils/luns/",
            "plugins/modules/idr",
            "plugins/modules/recovery_check.py",
            "plugins/modules/restore_target.py",
            "plugins/modules/saveset_export.py",
            "roles/drill/",
            "roles/idr",
            "roles/restore/",
            "roles/standby/",
            "tests/idr/",
        ),
        18,
    ),
    Suite(
        "slow",
        (
            "plugins/module_utils/storage/",
            "plugins/module_utils/saveset/",
            "tests/lab/",
            "tests/unit/",
        ),
        18,
    ),
    Suite(
        "integration",
        (
            "playbooks/",
            "plugins/",
            "roles/",
            "tests/integration/",
        ),
        30,
    ),
    Suite(
        "molecule-mbf",
        (
            "molecule/mbf/",
            "playbooks/mbf_census.yml",
            "plugins/inventory/mbf_census.py",
            "plugins/module_utils/control/census.py",
            "plugins/module_utils/quiesce/drivers/mbf.py",
            "plugins/module_utils/quiesce/mbf/",
            "plugins/modules/mbf.py",
            "roles/ring/",
        ),
        20,
    ),
    Suite(
        "test-site",
        (
            "README.md",
            "ansible.cfg",
            "galaxy.yml",
            "inventories/example/",
            "meta/runtime.yml",
            "playbooks/",
            "plugins/lookup/",
            "plugins/module_utils/host/confidential.py",
            "plugins/plugin_utils/",
            "requirements",
            "roles/adopt/",
            "roles/catalog/",
            "roles/preflight/",
            "roles/prune/",
            "roles/repository/",
            "roles/verify/",
            "tests/site/",
            "tests/support/first_site.py",
        ),
        12,
    ),
    Suite(
        "test-vm",
        (
            "plugins/module_utils/luns/",
            "plugins/modules/idr_lun",
            "scripts/idr-vm",
            "tests/unit/idr/luns/",
        ),
        12,
    ),
    Suite(
        "plain",
        (
            "inventories/lab_plain/",
            "scripts/isb",
            "scripts/summary.py",
        ),
        6,
    ),
)


def in_order(suites: Sequence[Suite], changed: Sequence[str] | None, commits: int) -> list[Suite]:
    """All suites, in the order in which to run them.

    ``changed``: paths; None if that is not known, which counts as if all had changed. ``commits``: their number, which
    decides whose turn it is.
    """
    turn = commits % len(suites)
    rotated = [*suites[turn:], *suites[:turn]]
    touched = [suite for suite in rotated if changed is None or _is_touched(suite, changed)]
    return touched + [suite for suite in rotated if suite not in touched]


def _is_touched(suite: Suite, changed: Sequence[str]) -> bool:
    return any(path.startswith(COMMON + suite.paths) for path in changed)


def run_in_time(
    suites: Sequence[Suite], run: Callable[[Suite], bool], elapsed: Callable[[], float], pace: float = 1.0
) -> tuple[bool, list[Suite]]:
    """Run suites until one fails or it is too late to start another.

    Returns whether all that ran passed, and the suites that were not started.
    ``run``: whether a suite passed. ``elapsed``: seconds since continuous integration began. ``pace``: how many times
    as long as usual everything takes on this machine.
    """
    left = []
    for number, suite in enumerate(suites):
        now = elapsed()
        if now > LAST_START or now + 60 * suite.minutes * pace > LAST_END:
            left.append(suite)
        elif not run(suite):
            return False, left + list(suites[number + 1 :])
    return True, left


def history() -> tuple[list[str] | None, int]:
    """The paths that have changed recently, and the number of commits.

    Without a history, as in an archive of the files, neither is known.
    """
    try:
        return changed_paths(), int(_git("rev-list", "--count", "HEAD"))
    except (OSError, subprocess.CalledProcessError) as error:
        _say(f"the history cannot be read ({error}): everything counts as changed")
        return None, 0


def changed_paths() -> list[str] | None:
    """The paths that have changed recently; None if history does not reach back that far."""
    base = os.environ.get("CI_BASE") or _commit_before(RECENT)
    if not base:
        return None
    # -z, because names are quoted otherwise; --no-renames, because a path that is gone has changed too.
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
    """Run the suites; return 1 if one failed."""
    os.chdir(Path(__file__).resolve().parents[1])
    started = float(sys.argv[1])
    suites = in_order(SUITES, *history())
    _say(f"long suites, in this order: {', '.join(suite.target for suite in suites)}")
    pace = max(1.0, (time.time() - started) / TEST_TAKES)
    passed, left = run_in_time(suites, _make, lambda: time.time() - started, pace)
    if left:
        why = f"they would not have ended by minute {LAST_END // 60}" if passed else "another one failed"
        _say(f"skipped, because {why}: {', '.join(suite.target for suite in left)}. `make test-all` runs everything")
    else:
        _say("no suite was skipped")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
