# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holds ansible-playbook at the start of a task, until the test has done its harm.

Environment: OPENISB_FAULT_TASK is ``<role>: <task>``; OPENISB_FAULT_GATE the path where ``.reached`` and ``.open`` go.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: fault_gate
type: aggregate
short_description: Holds a playbook at the start of a task
description: For tests.
"""


class CallbackModule(CallbackBase):
    """Waits once, in the process that hands out tasks."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "fault_gate"

    def v2_playbook_on_task_start(self, task, is_conditional):
        """A task is about to be handed out."""
        if task.get_name().removeprefix("openisb.backup.") != os.environ.get("OPENISB_FAULT_TASK"):
            return
        gate = os.environ["OPENISB_FAULT_GATE"]
        if not Path(gate + ".reached").exists():
            Path(gate + ".reached").touch()
            while not Path(gate + ".open").exists():
                time.sleep(0.02)
