# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The fault matrix as data: which fault makes sense in which step, why not in the others, and what runs by default."""

from __future__ import annotations

from .injections import FAULTS
from .steps import STEPS, WINDOW

Cell = tuple[str, str]
"""Step and fault."""

_NO_MODULE = "no program runs on the servers for the thaw: the connections' forwarded sockets carry it"
_NO_FREEZE = "no driver freezes or thaws in this step"
_NO_STORAGE = "nothing in this step reaches the storage"
_NO_REPOSITORY = "nothing in this step opens the repository"
_NO_HOLDER = "there is no holder yet"
_NO_MOUNT = "no filesystem is frozen or thawed in this step"
_HOLDER_DONE = "the holder has thawed: all that it still does is to answer"

#: By fault, the steps in which it does not apply, and why.
DOES_NOT_APPLY: dict[str, dict[str, str]] = {
    "module_fails": {"thaw": _NO_MODULE},
    "module_hangs": {"thaw": _NO_MODULE},
    "driver_fails": dict.fromkeys([step for step in STEPS if step not in ("freeze", "thaw")], _NO_FREEZE),
    "driver_hangs": dict.fromkeys([step for step in STEPS if step not in ("freeze", "thaw")], _NO_FREEZE),
    **{
        fault: {
            **dict.fromkeys([step for step in STEPS if step not in WINDOW], _NO_MOUNT),
            "thaw": "filesystems are thawed first; it is struck in the snapshot, before they are",
        }
        for fault in ("mount_hangs", "mount_lost")
    },
    "storage_unreachable": {
        "prepare": _NO_STORAGE,
        "freeze": "connections to the storage are open by then; it is struck in the snapshot",
        "thaw": _NO_STORAGE,
        "report": _NO_STORAGE,
    },
    "storage_full": {
        "prepare": "what the storage lacks is found in preflight, and again by the snapshot",
        "freeze": _NO_STORAGE,
        "thaw": _NO_STORAGE,
        "report": _NO_STORAGE,
    },
    "repository_lost": dict.fromkeys(["prepare", *WINDOW, "cleanup"], _NO_REPOSITORY),
    "holder_killed": {"preflight": _NO_HOLDER, "report": "every holder has ended"},
    "holder_stopped": {"preflight": _NO_HOLDER, "report": "every holder has ended", "backup": _HOLDER_DONE},
    "holder_and_partner_killed": {
        "preflight": _NO_HOLDER,
        "report": "every holder has ended",
        "backup": _HOLDER_DONE,
    },
    "all_killed": {"preflight": _NO_HOLDER, "report": "every holder has ended", "backup": _HOLDER_DONE},
    "clock_jumps": dict.fromkeys(
        [step for step in STEPS if step not in WINDOW], "nothing reads the holder's wall clock in this step"
    ),
}

#: What `make test-faults` runs: every step and every fault occurs, and each that can strike inside the window does so.
SPREAD: tuple[Cell, ...] = (
    ("preflight", "module_fails"),
    ("preflight", "storage_full"),
    ("prepare", "module_hangs"),
    ("prepare", "holder_and_partner_killed"),
    ("freeze", "driver_fails"),
    ("freeze", "host_unreachable"),
    ("freeze", "mount_hangs"),
    ("freeze", "sigterm"),
    ("freeze", "holder_killed"),
    ("snapshot", "storage_unreachable"),
    ("snapshot", "cancel"),
    ("snapshot", "holder_stopped"),
    ("snapshot", "mount_hangs"),
    ("snapshot", "mount_lost"),
    ("snapshot", "clock_jumps"),
    ("snapshot", "all_killed"),
    ("thaw", "driver_hangs"),
    ("thaw", "sshd_killed"),
    ("thaw", "sigkill"),
    ("backup", "repository_lost"),
    ("cleanup", "sigkill"),
    ("report", "backup_server_lost"),
)


def reason_against(cell: Cell) -> str:
    """Why a cell makes no sense; empty where it does."""
    step, fault = cell
    return DOES_NOT_APPLY.get(fault, {}).get(step, "")


def all_cells() -> list[Cell]:
    """Every cell of the matrix, those that make no sense too, by step."""
    return [(step, fault) for step in STEPS for fault in FAULTS]


def chosen(asked: str) -> list[Cell]:
    """The cells to run: ``all``, those of the spread (empty), or ``step:fault`` separated by commas; * for any."""
    applying = [cell for cell in all_cells() if not reason_against(cell)]
    if asked in ("", "spread"):
        return list(SPREAD)
    if asked == "all":
        return applying
    found = []
    for text in asked.split(","):
        step, _colon, fault = text.partition(":")
        found += [cell for cell in applying if step in ("*", cell[0]) and fault in ("*", cell[1])]
    if not found:
        raise ValueError(f"CELLS={asked}: no cell is named so; write all, spread, or step:fault such as freeze:sigkill")
    return found
