# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix as people read it: a row a cell, with what came of those that ran and why others make no sense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from .cell import BUDGET, SLACK
from .injections import FAULTS
from .matrix import all_cells, reason_against

HEAD = (
    "step",
    "fault",
    "frozen at most (s)",
    "verdict",
    "exit",
    "copies",
    "left by the run",
    "left after recover.yml",
    "next run",
    "holds",
)


def write(folder: Path, outcomes: list[dict[str, Any]]) -> None:
    """Write faults.json, with what earlier runs of other cells found, and faults.md."""
    path = folder / "faults.json"
    known = {(each["step"], each["fault"]): each for each in _read(path)}
    known.update({(each["step"], each["fault"]): each for each in outcomes})
    cells = [known[cell] for cell in all_cells() if cell in known]
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"budget": BUDGET, "slack": SLACK, "cells": cells}, indent=2) + "\n")
    (folder / "faults.md").write_text(text(known))


def _read(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["cells"] if path.exists() else []


def text(known: dict[tuple[str, str], dict[str, Any]]) -> str:
    """The table, and what each fault is."""
    lines = [
        "# Faults",
        "",
        f"The holders' time to live is {BUDGET} s. Written by `make test-faults`.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|" + "---|" * len(HEAD),
    ]
    for cell in all_cells():
        reason = reason_against(cell)
        if reason:
            lines.append(_row([*cell, f"does not apply: {reason}"]))
        elif cell in known:
            lines.append(_row(_cells(known[cell])))
        else:
            lines.append(_row([*cell, "not run (CELLS=all runs it)"]))
    lines += ["", "| fault | |", "|---|---|", *(f"| {fault.name} | {fault.what} |" for fault in FAULTS.values())]
    return "\n".join(lines) + "\n"


def _cells(outcome: dict[str, Any]) -> list[str]:
    return [
        outcome["step"],
        outcome["fault"],
        ", ".join(f"{server} {seconds:.1f}" for server, seconds in outcome["frozen"].items()),
        outcome["verdict"],
        "none" if outcome["exit_status"] is None else str(outcome["exit_status"]),
        outcome["copies"],
        _left(outcome["left_by_run"]),
        _left(outcome["left_after_recover"]),
        outcome["next_verdict"],
        "; ".join(outcome["problems"]) or f"yes ({outcome['when']})",
    ]


def _left(found: dict[str, list[str]]) -> str:
    return ", ".join(f"{len(things)} {kind}" for kind, things in found.items()) or "nothing"


def _row(cells: list[str]) -> str:
    filled = [*cells, *[""] * (len(HEAD) - len(cells))]
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in filled) + " |"
