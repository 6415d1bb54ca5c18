# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of a run: thin names over module_utils, where the work is done and tested."""

from __future__ import annotations

import datetime
import secrets

from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import lazy, load


def new_run_id(prefix):
    """A run id that sorts by time: ``isb-20261123T021500Z-4f1c2a``."""
    now = datetime.datetime.now(datetime.UTC)
    return "{}-{}-{}".format(prefix, now.strftime("%Y%m%dT%H%M%SZ"), secrets.token_hex(3))


def failure_text(result):
    """Why a task failed, in one line of plain text, from its result."""
    details = [str(result.get(key, "")).strip() for key in ("msg", "stderr", "module_stderr")]
    texts = [detail for detail in details if detail]
    if texts[1:] and texts[0].startswith(("MODULE FAILURE", "non-zero return code")):
        texts = texts[1:]
    return load("plain").plain(" ".join(texts[0].split())) if texts else "no reason given"


def run_plan(servers, hostvars):
    """What goes into the journal when a run is opened."""
    return dict(load("inventory").run_plan(servers, hostvars), controller=load("controller").this_controller())


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "new_run_id": new_run_id,
            "failure_text": failure_text,
            "inventory_problems": lazy("inventory.inventory_problems"),
            "volumes_by_storage": lazy("inventory.volumes_by_storage"),
            "run_plan": run_plan,
            "consistency_points": lazy("inventory.consistency_points"),
            "journal_kept": lazy("journal_head.kept_heads"),
            "journal_continuation": lazy("journal_head.continuation_problems"),
            "dead_runs": lazy("controller.dead_runs"),
            "dead_runs_summary": lazy("text.dead_runs_summary"),
            "recover_summary": lazy("text.recover_summary"),
            "hosts_with_clocks": lazy("clocks.hosts_with_clocks"),
            "preflight_decision": lazy("decision.decide"),
            "consistency_verdict": lazy("verdict.judge"),
            "run_report": lazy("report.run_report"),
            "run_summary": lazy("text.run_summary"),
            "bases": lazy("catalog.bases"),
            "parents": lazy("catalog.parents"),
            "choose_savesets": lazy("catalog.choose_savesets"),
            "with_places": lazy("catalog.with_places"),
            "unknown_savesets": lazy("catalog.unknown_savesets"),
            "to_adopt": lazy("catalog.to_adopt"),
            "catalog_table": lazy("text.catalog_table"),
            "prune_summary": lazy("text.prune_summary"),
        }
