# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options with which long tasks tell their progress."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.job)."""

    DOCUMENTATION = r"""
options:
  job:
    description: Name under which the job tells its progress to M(openisb.backup.job_info).
    type: str
    required: true
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
"""
