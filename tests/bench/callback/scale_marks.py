# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tells the benchmark which phase a run is in, and how many results its tasks had.

Environment: OPENISB_SCALE_MARKS is the number of an open file descriptor, to which lines of JSON are written.
"""

from __future__ import annotations

import collections
import json
import os

from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: scale_marks
type: aggregate
short_description: Tells which phase a run is in, and counts results
description: For tests.
"""

#: By a word in the name of a play, the phase that begins with it. Any other play belongs to the phase before it.
PLAYS = {
    "open the run": "open",
    "prepare every": "prepare",
    "consistency point": "consistency_point",
    "back up each": "backup",
    "close the run": "report",
}
#: Servers are cleaned up while others are backed up, in the same play: these results are told apart by their role.
CLEANUP = "cleanup"


def phase_of_play(name: str, before: str) -> str:
    """The phase that a play belongs to."""
    return next((phase for word, phase in PLAYS.items() if word in name.casefold()), before)


def roles_of(task) -> set[str]:
    """The short names of all roles that a task is in."""
    found = set()
    while task is not None:
        role = getattr(task, "_role", None)
        if role:
            found.add(role.get_name().rpartition(".")[2])
        task = getattr(task, "_parent", None)
    return found


class CallbackModule(CallbackBase):
    """Runs in the process that hands out tasks and receives their results."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "scale_marks"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self._marks = os.fdopen(os.dup(int(os.environ["OPENISB_SCALE_MARKS"])), "w")
        self._phase = ""
        self._results = collections.defaultdict(collections.Counter)
        self._enter("preflight")

    def _enter(self, phase):
        if phase != self._phase:
            self._phase = phase
            self._tell({"phase": phase})

    def _tell(self, mark):
        self._marks.write(json.dumps(mark) + "\n")
        self._marks.flush()

    def v2_playbook_on_play_start(self, play):
        """A play begins."""
        self._enter(phase_of_play(play.get_name(), self._phase))

    def v2_playbook_on_stats(self, stats):
        """The playbook has ended."""
        self._tell({"results": self._results})

    def _count(self, result):
        cleanup = self._phase == "backup" and CLEANUP in roles_of(result.task)
        self._results[CLEANUP if cleanup else self._phase][result.host.get_name()] += 1

    def v2_runner_on_ok(self, result):
        """A task has succeeded on a host."""
        self._count(result)

    def v2_runner_on_skipped(self, result):
        """A task was skipped on a host."""
        self._count(result)

    def v2_runner_on_failed(self, result, ignore_errors=False):
        """A task has failed on a host."""
        self._count(result)

    def v2_runner_on_unreachable(self, result):
        """A host was not reached."""
        self._count(result)
