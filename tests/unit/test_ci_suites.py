# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which long suites continuous integration runs, in which order, and when it stops starting them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from ci_suites import COMMON, LAST_END, LAST_START, SUITES, Suite, changed_paths, in_order, run_in_time
from ci_suites import history as git_history

ROOT = Path(__file__).parents[2]

A, B, C = Suite("a", ("of_a/",)), Suite("b", ("of_b/", "b.yml")), Suite("c", ("of_c/",))
ALL = (A, B, C)


@pytest.mark.parametrize(
    ("changed", "commits", "order"),
    [
        ([], 0, [A, B, C]),
        ([], 1, [B, C, A]),
        ([], 5, [C, A, B]),
        (["of_b/x.py"], 0, [B, A, C]),
        (["b.yml", "of_c/d/e"], 0, [B, C, A]),
        (["b.yml", "of_c/d/e"], 2, [C, B, A]),
        (["elsewhere/of_c/x"], 0, [A, B, C]),
        (["lab/roles/lab/tasks/main.yml"], 1, [B, C, A]),
        (None, 2, [C, A, B]),
    ],
)
def test_what_has_changed_comes_first_and_the_others_take_turns(
    changed: list[str] | None, commits: int, order: list[Suite]
) -> None:
    """Every suite has its turn, whatever was changed."""
    assert in_order(ALL, changed, commits) == order


def test_every_suite_is_first_at_some_commit() -> None:
    """A suite whose paths nobody touches is run too."""
    assert {in_order(SUITES, ["LICENSE"], commits)[0] for commits in range(len(SUITES))} == set(SUITES)


class Clock:
    """Time that passes only while a suite runs."""

    def __init__(self, now: float, each: float, failing: Suite | None = None) -> None:
        self.now = now
        self.ran: list[Suite] = []
        self._each = each
        self._failing = failing

    def run(self, suite: Suite) -> bool:
        """Run a suite, which takes its time."""
        self.now += self._each
        self.ran.append(suite)
        return suite is not self._failing

    def elapsed(self) -> float:
        """Seconds since the beginning."""
        return self.now


@pytest.mark.parametrize(
    ("begun", "each", "ran", "left"),
    [
        (600, 60, [A, B, C], []),
        (LAST_START, 1, [A], [B, C]),
        (LAST_START + 1, 1, [], [A, B, C]),
        (LAST_START - 1200, 700, [A, B], [C]),
    ],
)
def test_none_is_started_too_late(begun: float, each: float, ran: list[Suite], left: list[Suite]) -> None:
    """Also not the first one, where `make test` has taken all the time."""
    clock = Clock(begun, each)
    assert run_in_time(ALL, clock.run, clock.elapsed) == (True, left)
    assert clock.ran == ran


@pytest.mark.parametrize(("pace", "ran"), [(1.0, ["long", "short"]), (2.0, ["short"])])
def test_what_would_not_end_in_time_leaves_its_turn_to_a_shorter_one(pace: float, ran: list[str]) -> None:
    """A machine that is slow takes twice as long."""
    long, short = Suite("long", ("l/",), 30), Suite("short", ("s/",), 6)
    clock = Clock(LAST_START - 600, 60)
    passed, left = run_in_time((long, short), clock.run, clock.elapsed, pace)
    assert passed and [suite.target for suite in clock.ran] == ran
    assert [suite.target for suite in left] == [name for name in ("long", "short") if name not in ran]


def test_every_suite_has_its_minutes() -> None:
    assert all(0 < suite.minutes * 60 < LAST_END - LAST_START for suite in SUITES)


def test_the_first_that_fails_ends_it() -> None:
    """What comes after it is told as left out."""
    clock = Clock(0, 1, failing=B)
    assert run_in_time(ALL, clock.run, clock.elapsed) == (False, [C])


def test_the_table_is_true() -> None:
    """Each suite is a target of the Makefile, each path is there, and `make test-all` runs all of them."""
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    assert {suite.target for suite in SUITES} <= targets
    recipe = re.search(r"^test-all:.*\n\t@scripts/test (.*)$", makefile, re.MULTILINE)
    assert recipe
    assert {suite.target.removeprefix("test-") for suite in SUITES} <= set(recipe[1].split())
    paths = [
        path.relative_to(ROOT).as_posix()
        for top in ("inventories", "lab", "meta", "playbooks", "plugins", "roles", "tests")
        for path in (ROOT / top).rglob("*")
    ]
    paths += [
        path.relative_to(ROOT).as_posix() for top in (ROOT, ROOT / "scripts", ROOT / ".ci") for path in top.iterdir()
    ]
    paths += [path.relative_to(ROOT).as_posix() for path in (ROOT / "molecule").rglob("*")]
    for prefix in {*COMMON, *(path for suite in SUITES for path in suite.paths)}:
        assert any(f"{path}/".startswith(prefix) or path.startswith(prefix) for path in paths), (
            f"no path begins with {prefix}"
        )


@pytest.fixture
def history(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository with three commits: ten hours, three hours and no time before the newest one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CI_BASE", raising=False)
    _git("init", "-q", "-b", "main")
    for name, hour in (("old", 0), ("recent", 7), ('na"me\n', 10)):
        (tmp_path / name).write_text("")
        _git("add", ".")
        _git("commit", "-q", "-m", name, at=f"{1_700_000_000 + hour * 3600} +0000")
    yield tmp_path


def _git(*arguments: str, at: str = "") -> None:
    who = {"GIT_AUTHOR_NAME": "n", "GIT_AUTHOR_EMAIL": "e", "GIT_COMMITTER_NAME": "n", "GIT_COMMITTER_EMAIL": "e"}
    environment = {**os.environ, **who, "GIT_COMMITTER_DATE": at, "GIT_CONFIG_GLOBAL": "/dev/null"}
    subprocess.run(["git", *arguments], check=True, env=environment)


def test_what_has_changed_is_what_was_committed_lately(history: Path) -> None:
    """By the commits' own times: a clone that is tested a day later has the same."""
    assert changed_paths() == ['na"me\n', "recent"]


def test_a_base_can_be_named(history: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For whoever knows better what was tested last."""
    monkeypatch.setenv("CI_BASE", "HEAD~1")
    assert changed_paths() == ['na"me\n']


def test_without_a_history_everything_counts_as_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in an archive of the files: nothing is left out because nothing is known."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.delenv("CI_BASE", raising=False)
    assert git_history() == (None, 0)


def test_what_is_known_of_a_history(history: Path) -> None:
    """Both at once."""
    assert git_history() == (['na"me\n', "recent"], 3)


def test_a_short_history_counts_as_all_changed(history: Path) -> None:
    """As in a shallow clone: nothing is left out because nothing is known."""
    _git("checkout", "-q", "--orphan", "alone")
    _git("commit", "-q", "-m", "alone", at="1700000000 +0000")
    assert changed_paths() is None
