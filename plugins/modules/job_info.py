#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job_info
short_description: Tell how far a backup, verification or restore is
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads what M(openisb.backup.block_backup) or M(openisb.backup.block_restore) tells of itself while it runs detached,
    to be asked again until RV(finished).
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  name:
    description: Name of the job.
    type: str
    required: true
  label:
    description: What to call the job in progress displays. The name where it is left out.
    type: str
  grace:
    description:
      - How many seconds to wait for a job that has said nothing yet. One that says nothing counts as finished, as it
        failed before it began, and its own result says why.
    type: float
    default: 20.0
  wait:
    description: For how many seconds at most to wait for the end of a job at work, before telling how far it is.
    type: float
    default: 0.0
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
"""

EXAMPLES = r"""
- name: Wait for the backup
  openisb.backup.job_info:
    name: isb-20261123T021500Z-4f1c2a.fs1.m
    wait: 1
  register: job
  until: job.finished
  retries: 86400
  delay: 0
"""

RETURN = r"""
finished:
  description: Whether the job has ended, well or badly. What came of it is the job's own result.
  returned: success
  type: bool
state:
  description: V(unknown) where it said nothing, V(waiting) for a slot, V(running) or V(finished).
  returned: success
  type: str
progress:
  description: percent, bytes_done, bytes_total, rate (bytes a second), eta_s (seconds left), and label.
  returned: success
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.jobs import FINISHED, Job

SILENT = {"state": "unknown", "running": False, "progress": {}}


def read_when_there(job, grace):
    """What the job says, waited for up to ``grace`` seconds."""
    deadline = time.monotonic() + grace
    record = job.read()
    while record is None and time.monotonic() < deadline:
        time.sleep(0.05)
        record = job.read()
    return record or SILENT


def has_ended(record):
    """Whether there is nothing to wait for any more."""
    return record["state"] == FINISHED or not record["running"]


def read_when_ended(job, grace, wait):
    """What the job says at its end, or after ``wait`` seconds."""
    record = read_when_there(job, grace)
    deadline = time.monotonic() + wait
    while not has_ended(record) and time.monotonic() < deadline:
        time.sleep(0.05)
        record = job.read() or SILENT
    return record


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "label": {"type": "str"},
            "grace": {"type": "float", "default": 20.0},
            "wait": {"type": "float", "default": 0.0},
            "run_dir": {"type": "path", "default": "/run/openisb"},
        },
        supports_check_mode=True,
    )
    name = module.params["name"]
    record = read_when_ended(Job(module.params["run_dir"], name), module.params["grace"], module.params["wait"])
    module.exit_json(
        changed=False,
        finished=has_ended(record),
        state=record["state"],
        progress=dict(record["progress"], label=module.params["label"] or name),
    )


if __name__ == "__main__":
    main()
