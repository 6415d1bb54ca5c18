#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job_info
short_description: Report the progress of backups, verifications and restores
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads what M(openisb.backup.block_backup) and the other modules that run as jobs report meanwhile. Their own tasks
    show that until a job has ended. One answer serves all of them.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  wait:
    description:
      - How many seconds at most to wait for something to happen. A job begins, leaves its slot's queue, or ends.
    type: float
    default: 0.0
  ended:
    description:
      - Names of the jobs whose end is known from an earlier answer.
      - If another job has ended, even before this module started, it does not wait.
    type: list
    elements: str
    default: []
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
"""

EXAMPLES = r"""
- name: See how far the backups are
  openisb.backup.job_info:
  register: there
"""

RETURN = r"""
jobs:
  description:
    - The jobs of this host, by name. Each has C(finished), whether it has ended, successfully or not; its outcome is in
      its own result.
    - Also C(state), V(waiting) for a slot, V(running) or V(finished); and C(progress), with percent, bytes_done,
      bytes_total, rate (bytes a second) and eta_s (seconds left).
    - Of a job with several parts, such as the volumes of a server, the progress has the same of each in C(parts), with
      its C(state), which is V(waiting), V(running), V(finished) or V(failed).
  returned: success
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import FINISHED, read_all

#: Seconds from one look to the next. A job reports as often.
TURN = 0.25


def has_ended(record):
    """Whether there is nothing left to wait for."""
    return record["state"] == FINISHED or not record["running"]


def ended(records):
    """The names of the jobs that have ended."""
    return {name for name, record in records.items() if has_ended(record)}


def happened(before, now):
    """Whether a job has begun, left its slot's queue, or ended."""

    def states(records):
        return {name: (record["state"], has_ended(record)) for name, record in records.items()}

    return states(before) != states(now)


def look(run_dir, wait, known):
    """The records of all jobs when something happens, or after ``wait`` seconds. ``known``: jobs that had ended."""
    deadline = time.monotonic() + wait
    before = found = read_all(run_dir)
    while ended(found) <= known and not happened(before, found) and time.monotonic() < deadline:
        time.sleep(min(TURN, max(deadline - time.monotonic(), 0)))
        found = read_all(run_dir)
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "wait": {"type": "float", "default": 0.0},
            "ended": {"type": "list", "elements": "str", "default": []},
            "run_dir": {"type": "path", "default": "/run/openisb"},
        },
        supports_check_mode=True,
    )
    found = look(module.params["run_dir"], module.params["wait"], set(module.params["ended"]))
    module.exit_json(
        changed=False,
        jobs={
            name: {"finished": has_ended(record), "state": record["state"], "progress": record["progress"]}
            for name, record in found.items()
        },
    )


if __name__ == "__main__":
    main()
