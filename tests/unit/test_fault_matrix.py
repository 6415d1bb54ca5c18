# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault matrix as data: no cell is left out without a reason, and the default reaches every step and fault."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def matrix() -> ModuleType:
    """The table; it lies beside the tests that run its cells."""
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    return importlib.import_module("faults.matrix")


def test_the_spread_has_every_step_and_every_fault(matrix: ModuleType) -> None:
    steps, faults = {step for step, _fault in matrix.SPREAD}, {fault for _step, fault in matrix.SPREAD}
    assert (steps, faults) == (set(matrix.STEPS), set(matrix.FAULTS))
    assert [cell for cell in matrix.SPREAD if matrix.reason_against(cell)] == []


def test_reasons_are_of_cells_that_there_are(matrix: ModuleType) -> None:
    named = {(step, fault) for fault, steps in matrix.DOES_NOT_APPLY.items() for step in steps}
    assert named <= set(matrix.all_cells())
    assert all(matrix.reason_against(cell) for cell in named)


def test_cells_are_chosen_by_name(matrix: ModuleType) -> None:
    assert matrix.chosen("") == list(matrix.SPREAD)
    assert matrix.chosen("freeze:sigkill,thaw:cancel") == [("freeze", "sigkill"), ("thaw", "cancel")]
    assert {step for step, _fault in matrix.chosen("*:driver_fails")} == {"freeze", "thaw"}
    assert len(matrix.chosen("all")) == len(matrix.all_cells()) - sum(map(len, matrix.DOES_NOT_APPLY.values()))
    with pytest.raises(ValueError, match="no cell is named so"):
        matrix.chosen("freeze:nothing")
