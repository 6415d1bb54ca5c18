# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for the answers of hosts: thin wrappers around module_utils, where the work is done and tested."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import lazy


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "nbd_address": lazy("control.answers.nbd_address"),
            "nbd_key": lazy("control.answers.nbd_key"),
            "held_saveset": lazy("control.answers.held_saveset"),
        }
