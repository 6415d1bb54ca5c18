# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of checks: thin names over module_utils/checks, where the work is done and tested."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import lazy


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "idr_check_problems": lazy("checks.known.problems_of"),
            "idr_checks": lazy("checks.defaults.default_checks"),
        }
