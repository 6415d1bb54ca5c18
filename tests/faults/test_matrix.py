# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs that are hurt at every step, in every way: no server stays frozen, nothing is called what it is not.

CELLS in the environment chooses: ``spread`` (the default), ``all``, or ``step:fault``, several with commas.
"""

from __future__ import annotations

import datetime
import os
from pathlib import Path

import pytest
from lab import ROOT, Lab

from . import table
from .cell import Bench
from .matrix import Cell, chosen

pytestmark = [pytest.mark.lab, pytest.mark.root, pytest.mark.slow]


@pytest.fixture(scope="session")
def bench(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """The lab with the stand-ins on its hosts, after one run that nobody hurt."""
    return Bench(lab, tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("cell", chosen(os.environ.get("CELLS", "")), ids=":".join)
def test_cell(bench: Bench, cell: Cell) -> None:
    outcome = bench.run(cell)
    when = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    table.write(Path(ROOT) / "build", [{**outcome.as_dict(), "when": when}])
    assert not outcome.problems, f"{outcome}\nlogs: {bench.folder}"
