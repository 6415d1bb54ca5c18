# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps of a run, and where in each of them a fault strikes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Step:
    """One step. ``host`` is the one that works in it and is hurt.

    The run is held at ``task`` (role and task, as Ansible names them), before it begins, or, where the step is a part
    of the freeze window, inside the driver or the storage's command on ``gate_host``. It is not held where the step is
    a job of ``host``, which takes long enough.
    """

    name: str
    host: str
    task: str = ""
    gate_host: str = ""
    job: bool = False


STEPS = {
    step.name: step
    for step in (
        Step("preflight", "fs1", task="preflight : Test the drivers, and find the volumes"),
        Step("prepare", "fs1", task="prepare : Arm the holder"),
        Step("freeze", "fs1", gate_host="fs1"),
        Step("snapshot", "storage1", gate_host="storage1"),
        Step("thaw", "fs1", gate_host="fs1"),
        Step("backup", "backup1", job=True),
        Step("cleanup", "fs1", task="cleanup : End the holder"),
        Step("report", "backup1", task="report : Create the folder for reports beside the savesets"),
    )
}
#: Steps inside the freeze window.
WINDOW = ("freeze", "snapshot", "thaw")
#: The step prepare, once every holder is armed.
ARMED = {"prepare": "consistency_point : Record what is about to be frozen"}
#: The step preflight before any host is checked: hosts are checked side by side.
UNCHECKED = {"preflight": "Set the paths and addresses of each host"}
