# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of drills: thin names over module_utils/idr, where the work is done and tested."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import lazy


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "idr_plan": lazy("idr.plan.plan"),
            "idr_opening": lazy("idr.plan.opening"),
            "idr_plan_summary": lazy("idr.plan.plan_summary"),
            "idr_closing": lazy("idr.life.closing"),
            "idr_saveset_points": lazy("idr.volumes.saveset_points"),
            "idr_snapshot_points": lazy("idr.volumes.snapshot_points"),
            "idr_part": lazy("idr.volumes.part_of"),
            "idr_context": lazy("idr.volumes.context"),
            "idr_obstacles": lazy("idr.volumes.obstacles"),
            "idr_content_jobs": lazy("idr.content.jobs"),
            "idr_content_checks": lazy("idr.content.checks"),
            "open_drills": lazy("idr.life.open_drills"),
            "drills_to_end": lazy("idr.life.drills_to_end"),
            "with_proof": lazy("idr.life.with_proof"),
            "last_proof": lazy("idr.life.last_proof"),
            "due_servers": lazy("idr.life.due_servers"),
            "due_summary": lazy("idr.life.due_summary"),
        }
