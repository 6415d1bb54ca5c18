# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of modules that run as jobs, detached from Ansible."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.job)."""

    DOCUMENTATION = r"""
description:
  - The module runs detached, as a job. So a connection that breaks does not end it.
  - The task shows the progress of the job on lines of its own with every callback plugin, and ends with the job. The
    longer a job takes, the less often it is polled; its end is still noticed at once.
  - The task keyword C(timeout), a minute at most, applies to each poll, in addition to the time for which the poll
    waits for the job to end. The keyword C(async) is not supported.
options:
  job:
    description: Name under which the job reports its progress to M(openisb.backup.job_info).
    type: str
    required: true
  label:
    description: What to call the job in progress displays. Defaults to O(job).
    type: str
  poll:
    description: Seconds between polls at first.
    type: float
    default: 1.0
  timeout:
    description: Seconds after which the job is ended, and the task fails.
    type: int
    default: 86400
  grace:
    description: How many seconds to wait for a job that has reported nothing yet.
    type: float
    default: 20.0
  patience:
    description: Seconds for which the host may be unreachable before the task fails. The job goes on.
    type: float
    default: 300.0
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
"""
