# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An empty store of each kind that is registered."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import STORES, open_store
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Store

#: What a child process does first.
_OPEN = """
import sys
from saveset.store.registry import open_store
store = open_store(sys.argv[1])
"""


@pytest.fixture
def file_location(tmp_path: Path) -> str:
    """Where a store in a folder can be."""
    return str(tmp_path / "store")


@pytest.fixture(params=sorted(STORES))
def location(request: pytest.FixtureRequest) -> str:
    """Where an empty store can be, for each scheme: what the fixture ``<scheme>_location`` returns."""
    found: str = request.getfixturevalue(f"{request.param}_location")
    return found


@pytest.fixture
def store(location: str) -> Store:
    """An empty store."""
    return open_store(location)


Child = t.Callable[[str], subprocess.Popen[str]]


@pytest.fixture
def child(location: str, scratch_environment: dict[str, str]) -> t.Iterator[Child]:
    """Start a process that opens the same ``store``, does what it is told, prints a line and waits to be killed."""
    with contextlib.ExitStack() as started:

        def start(work: str) -> subprocess.Popen[str]:
            code = f"{_OPEN}{work}\nprint('done', flush=True)\nsys.stdin.read()"
            process = started.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, location],
                    env=scratch_environment,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            started.callback(process.kill)
            assert process.stdout is not None and process.stdout.readline() == "done\n"
            return process

        yield start
