# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What playbooks decide and show, by name: the work is done and tested in the functions of module_utils named here."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import load

FACTS = {
    "artifacts": "control.outcome.artifacts",
    "backups": "control.backups.backups",
    "belonging_problems": "control.belonging.belonging_problems",
    "choose_savesets": "control.catalog.choose_savesets",
    "consistency_points": "control.inventory.consistency_points",
    "consistency_verdict": "control.verdict.judge",
    "dead_runs": "control.controller.dead_runs",
    "disk_blocks": "control.answers.disk_blocks",
    "drills_to_end": "control.drill.life.ending",
    "due_servers": "control.drill.life.due",
    "host_facts": "control.hosts.host_facts",
    "hosts_with_clocks": "control.clocks.hosts_with_clocks",
    "idr_by_dr_host": "control.drill.volumes.by_dr_host",
    "idr_check_problems": "checks.known.problems_of",
    "idr_check_records": "control.drill.steps.check_records",
    "idr_checks": "checks.defaults.default_checks",
    "idr_closing": "control.drill.life.closing",
    "idr_content_checks": "control.drill.content.checks",
    "idr_content_jobs": "control.drill.content.jobs",
    "idr_context": "control.drill.volumes.context",
    "idr_described": "control.drill.servers.description_problems",
    "idr_devices": "control.drill.steps.devices",
    "idr_fenced": "control.drill.servers.fenced",
    "idr_filesystem_checks": "control.drill.steps.filesystem_checks",
    "idr_lost": "control.drill.servers.lost",
    "idr_mounts": "control.drill.steps.mounts",
    "idr_obstacles": "control.drill.volumes.obstacles",
    "idr_opening": "control.drill.plan.opening",
    "idr_outcome": "control.drill.steps.outcome",
    "idr_page": "control.drill.page.idr_page",
    "idr_parts": "control.drill.steps.parts",
    "idr_plan": "control.drill.plan.plan",
    "idr_reached": "control.drill.steps.reached",
    "idr_report": "control.drill.report.idr_report",
    "idr_saveset_points": "control.drill.volumes.saveset_points",
    "idr_savesets": "control.drill.steps.savesets",
    "idr_signature": "journal.signature.signature_of_files",
    "idr_snapshot_points": "control.drill.volumes.snapshot_points",
    "idr_standing_by": "control.drill.servers.standing_by",
    "idr_taking_part": "control.drill.servers.taking_part",
    "idr_target": "control.drill.steps.target_of",
    "idr_told": "control.drill.servers.told",
    "inventory_problems": "control.inventory.inventory_problems",
    "journal_continuation": "journal.head.continuation_problems",
    "journal_is_sound": "control.decision.journal_is_sound",
    "journal_kept": "journal.head.kept_heads",
    "next_backup_server": "control.placing.next_backup_server",
    "out_of_order": "control.catalog.out_of_order",
    "preflight_decision": "control.decision.decide",
    "preflight_warnings": "plugin_utils.warnings.preflight_warnings",
    "refusal": "control.outcome.refusal",
    "repository_hosts": "control.placing.repository_hosts",
    "run_plan": "control.controller.opening",
    "run_report": "control.report.run_report",
    "saveset_records": "control.backups.saveset_records",
    "server_findings": "control.findings.server_findings",
    "sources": "control.sources.sources",
    "storage_hosts_of": "control.placing.storage_hosts_of",
    "taking_part": "control.hosts.taking_part",
    "to_adopt": "control.catalog.to_adopt",
    "volumes_by_storage": "control.inventory.volumes_by_storage",
    "volumes_to_find": "control.inventory.volumes_to_find",
    "with_places": "control.catalog.with_places",
    "with_proof": "control.drill.life.with_proof",
}

TEXTS = {
    "catalog": "control.text.catalog_table",
    "dead_runs": "control.text.dead_runs_summary",
    "due": "control.drill.life.due_summary",
    "idr": "control.drill.summary.idr_summary",
    "idr_plan": "control.drill.plan.plan_summary",
    "prune": "control.text.prune_summary",
    "recover": "control.text.recover_summary",
    "run": "control.text.run_summary",
    "saveset": "control.catalog.named",
    "unknown_savesets": "control.catalog.unknown_savesets",
}


def facts(value, name, *arguments, **options):
    """What the controller derives from hosts' answers, the journal and the inventory."""
    return _call(FACTS, name, value, *arguments, **options)


def text(value, name, *arguments, **options):
    """The same for people."""
    return _call(TEXTS, name, value, *arguments, **options)


def _call(known, name, *arguments, **options):
    if name not in known:
        raise AnsibleFilterError(f"there is no '{name}': known are {', '.join(sorted(known))}")
    module, _dot, function = known[name].rpartition(".")
    try:
        return getattr(load(module), function)(*arguments, **options)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {"facts": facts, "text": text}
