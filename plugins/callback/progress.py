# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Ansible's default output, with the progress of backups and restores
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Shows what the default callback shows. In place of C(FAILED - RETRYING) lines of M(openisb.backup.job_info) it shows
    how far the job is, and messages of M(ansible.builtin.debug) as the text that they are.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - Set as C(stdout_callback) in ansible.cfg.
"""

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.openisb.backup.plugins.module_utils.text import rate


def progress_line(host, progress):
    """One line for one look at a job; ``progress`` as job_info returns it."""
    label = progress.get("label", host)
    if "percent" not in progress:
        return f"  {label:<18} waiting"
    left = progress.get("eta_s")
    eta = "" if left is None else f"{left:.0f} s left"
    return f"  {label:<18} {progress['percent']:5.1f} %  {rate(progress['rate']):>12}  {eta}"


class CallbackModule(Default):
    """The default output with two exceptions."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "openisb.backup.progress"

    def v2_runner_retry(self, result):
        """A job that is not finished has not failed."""
        progress = result.result.get("progress")
        if progress is None:
            super().v2_runner_retry(result)
        else:
            self._display.display(progress_line(result.host.get_name(), progress), color=C.COLOR_CHANGED)

    def v2_playbook_on_include(self, included_file):
        """What includes what is for developers: shown with -v."""
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_ok(self, result):
        """Text is shown as text."""
        message = result.result.get("msg")
        if result.task.action in C._ACTION_DEBUG and isinstance(message, str):
            self._display.display(f"\n{message}\n")
        else:
            super().v2_runner_on_ok(result)
