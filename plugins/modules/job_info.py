#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: job_info
short_description: Report the progress of a backup, verification or restore
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads what M(openisb.backup.block_backup) or another module that runs as a job reports meanwhile. Its own task
    shows that until RV(finished).
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  name:
    description: Name of the job.
    type: str
    required: true
  label:
    description: What to call the job in progress displays. Defaults to O(name).
    type: str
  grace:
    description:
      - How many seconds to wait for a job that has reported nothing yet. A job that reports nothing counts as finished,
        because it failed before it began, and its own result says why.
    type: float
    default: 20.0
  wait:
    description: How many seconds at most to wait for a running job to end before reporting its progress.
    type: float
    default: 0.0
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
"""

EXAMPLES = r"""
- name: See how far the backup is
  openisb.backup.job_info:
    name: isb-20261123T021500Z-4f1c2a.fs1.m
  register: job
"""

RETURN = r"""
finished:
  description: Whether the job has ended, successfully or not. Its outcome is in the job's own result.
  returned: success
  type: bool
state:
  description: V(unknown) if it reported nothing, V(waiting) for a slot, V(running) or V(finished).
  returned: success
  type: str
progress:
  description: percent, bytes_done, bytes_total, rate (bytes a second), eta_s (seconds left), and label.
  returned: success
  type: dict
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import FINISHED, Job

SILENT = {"state": "unknown", "running": False, "progress": {}}


def read_when_there(job, grace):
    """What the job reports, after waiting up to ``grace`` seconds for its first report."""
    deadline = time.monotonic() + grace
    record = job.read()
    while record is None and time.monotonic() < deadline:
        time.sleep(0.05)
        record = job.read()
    return record or SILENT


def has_ended(record):
    """Whether there is nothing left to wait for."""
    return record["state"] == FINISHED or not record["running"]


def read_when_ended(job, grace, wait):
    """What the job reports when it ends, or after ``wait`` seconds."""
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
