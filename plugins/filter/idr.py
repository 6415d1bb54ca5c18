# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of drills: thin names over module_utils/idr, where the work is done and tested."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.module_utils.idr import content, life, plan, volumes


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "idr_plan": plan.plan,
            "idr_opening": plan.opening,
            "idr_plan_summary": plan.plan_summary,
            "idr_closing": life.closing,
            "idr_saveset_points": volumes.saveset_points,
            "idr_snapshot_points": volumes.snapshot_points,
            "idr_part": volumes.part_of,
            "idr_context": volumes.context,
            "idr_obstacles": volumes.obstacles,
            "idr_content_jobs": content.jobs,
            "idr_content_checks": content.checks,
            "open_drills": life.open_drills,
            "drills_to_end": life.drills_to_end,
            "with_proof": life.with_proof,
            "last_proof": life.last_proof,
            "due_servers": life.due_servers,
            "due_summary": life.due_summary,
        }
