# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: progress
type: stdout
short_description: Ansible's default output, with messages shown as plain text
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Shows what the default callback shows, but messages of M(ansible.builtin.debug) as plain text, and no includes. The
    progress of a job is shown by its own task, with every callback.
extends_documentation_fragment:
  - default_callback
  - result_format_callback
requirements:
  - Set as C(stdout_callback) in ansible.cfg.
"""

from ansible import constants as C
from ansible.plugins.callback.default import CallbackModule as Default


class CallbackModule(Default):
    """The default output with two exceptions."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "openisb.backup.progress"

    def v2_playbook_on_include(self, included_file):
        """Show includes only with -v: they are for developers."""
        if self._display.verbosity:
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_ok(self, result):
        """Show a message as plain text, be it one text or a list of lines."""
        message = result.result.get("msg")
        lines = message if isinstance(message, list) else [message]
        if result.task.action in C._ACTION_DEBUG and all(isinstance(line, str) for line in lines):
            self._display.display("\n" + "\n".join(lines) + "\n")
        else:
            super().v2_runner_on_ok(result)
