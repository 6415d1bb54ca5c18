#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_prune
short_description: Forget savesets according to a retention policy, and free their disk space
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Keeps the newest savesets of every volume that the policy asks for, forgets the others, and removes what no saveset
    uses any more. Also removes what interrupted backups have left.
  - Every rule counts independently, in UTC, from each volume's newest saveset on. A saveset stays if any rule keeps it.
  - The newest saveset is the one that was added last, whatever its time. One that does not fit into the order in which
    savesets were added, or that is missing from O(known), is set aside. It stays, and no rule counts it.
  - If more than O(max_percent) of a volume's savesets would be forgotten, nothing is removed unless O(confirm) is their
    number.
  - Safe to run alongside backups and restores. What one of them may need is only marked, and removed by a later prune;
    see RV(waiting).
  - A policy that keeps nothing is an error.
  - In check mode nothing is changed, and the result is what would be done.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
  - openisb.backup.job
options:
  keep_last:
    description: Keep this many of the newest savesets of each volume.
    type: int
    default: 0
  keep_hourly:
    description: Keep the newest saveset of each of this many hours that have savesets.
    type: int
    default: 0
  keep_daily:
    description: The same for days.
    type: int
    default: 0
  keep_weekly:
    description: The same for ISO weeks.
    type: int
    default: 0
  keep_monthly:
    description: The same for months.
    type: int
    default: 0
  keep_yearly:
    description: The same for years.
    type: int
    default: 0
  keep_within:
    description:
      - Keep every saveset that is at most this much older than the newest one of its volume, such as V(14d), V(1y6m) or
        V(2w3d12h).
    type: str
    default: ""
  keep_consistent:
    description: Keep the latest application-consistent saveset of every volume, regardless of the rest of the policy.
    type: bool
    default: true
  known:
    description:
      - The savesets that the run journal knows, as M(openisb.backup.run_journal_info) returns them. All others are set
        aside. If omitted, only the order in which savesets were added counts.
    type: list
    elements: dict
    suboptions:
      id:
        description: The saveset's id.
        type: str
        required: true
      volume:
        description: Its volume.
        type: str
        required: true
      sequence:
        description: Its place in the order.
        type: int
        required: true
      time:
        description: Its consistency point, as ISO 8601 with a time zone.
        type: str
        required: true
  max_percent:
    description:
      - Stop if more than this percentage of the savesets of a volume, or of all together, would be forgotten. Fewer
        than five savesets are no reason to stop.
    type: float
    default: 50.0
  confirm:
    description: Proceed anyway if exactly this many savesets would be forgotten.
    type: int
  servers:
    description: Apply the policy to savesets of these servers only. To all if omitted.
    type: list
    elements: str
  punch_percent:
    description:
      - Holes are punched into packs that are still in use if more than this percentage of them is dead. Nothing is
        rewritten; on filesystems that cannot punch holes this is skipped.
    type: int
    default: 10
  everywhere:
    description: Look for dead parts in all packs, not only in those that forgotten savesets used.
    type: bool
    default: false
seealso:
  - module: openisb.backup.saveset_pin
  - module: openisb.backup.job_info
"""

EXAMPLES = r"""
- name: Keep a year
  openisb.backup.saveset_prune:
    repository: /var/lib/openisb/repository
    keep_last: 3
    keep_daily: 7
    keep_weekly: 5
    keep_monthly: 12
    job: prune
"""

RETURN = r"""
savesets:
  description:
    - The savesets that the policy was applied to, by volume and then oldest first. Each also with keep, reasons and
      aside, which says why it is set aside (empty if it is not).
  returned: success
  type: list
  elements: dict
forgotten:
  description: Ids of the savesets that were forgotten.
  returned: success
  type: list
  elements: str
stopped:
  description: In check mode, why nothing would be removed unless O(confirm) is given; empty if the prune would proceed.
  returned: success
  type: str
bytes_freed:
  description: Bytes freed in the store.
  returned: success
  type: int
packs_deleted:
  description: How many packs were removed.
  returned: success
  type: int
maps_deleted:
  description: How many maps were removed.
  returned: success
  type: int
packs_punched:
  description: How many packs had holes punched into dead parts.
  returned: success
  type: int
waiting:
  description:
    - What a later prune will remove, because it may still be needed now. Each with tombstone, bytes, and leases, which
      are texts that say what it waits for.
  returned: success
  type: list
  elements: dict
seconds:
  description: How long it took.
  returned: success
  type: float
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import known_places, saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries, running_job
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)
from ansible_collections.openisb.backup.plugins.module_utils.host import jobs
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import RUNNING
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import Unconfirmed
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import MAX_PERCENT, PruneOptions
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy

KNOWN = {
    "id": {"type": "str", "required": True},
    "volume": {"type": "str", "required": True},
    "sequence": {"type": "int", "required": True},
    "time": {"type": "str", "required": True},
}
COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


def prune(module, job):
    """Prune, or in check mode find out what would be done; return the engine's report."""
    params = module.params
    policy = Policy(
        within=params["keep_within"],
        consistent=params["keep_consistent"],
        **{name: params["keep_" + name] for name in COUNTS},
    )
    options = PruneOptions(
        servers=params["servers"],
        threshold=params["punch_percent"] / 100,
        everywhere=params["everywhere"],
        known=known_places(params["known"]),
        max_percent=params["max_percent"],
        confirmed=params["confirm"],
    )
    repository = open_repository(module)
    try:
        return repository.prune(
            policy,
            options=options,
            dry_run=module.check_mode,
            progress=lambda now: job.tell_progress(now.bytes_done, now.bytes_total, now.elapsed_s),
        )
    except Unconfirmed as error:
        module.fail_json(msg=f"Repository {error} (for prune.yml: -e prune_confirm={error.count})")


def result_of(report):
    """The module's result."""
    return {
        "changed": bool(report.forgotten or report.packs_deleted or report.maps_deleted or report.packs_punched),
        "savesets": [
            dict(saveset_facts(item.info), keep=item.keep, reasons=list(item.reasons), aside=item.aside)
            for item in report.decisions
        ],
        "stopped": report.stopped,
        "forgotten": report.forgotten,
        "bytes_freed": report.bytes_freed,
        "packs_deleted": report.packs_deleted,
        "maps_deleted": report.maps_deleted,
        "packs_punched": report.packs_punched,
        "waiting": [
            {"tombstone": item.tombstone, "bytes": item.bytes, "leases": list(item.leases)} for item in report.waiting
        ],
        "seconds": report.seconds,
        "diff": {
            "before": lines(item.info for item in report.decisions),
            "after": lines(item.info for item in report.decisions if item.info.id not in report.forgotten),
        },
    }


def lines(savesets):
    """Savesets as text, one line each."""
    return "".join(f"{info.volume} {info.time:%Y-%m-%dT%H:%M:%SZ} {info.id}\n" for info in savesets)


def main():
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENTS,
            **{"keep_" + name: {"type": "int", "default": 0} for name in COUNTS},
            keep_within={"type": "str", "default": ""},
            keep_consistent={"type": "bool", "default": True},
            known={"type": "list", "elements": "dict", "options": KNOWN},
            max_percent={"type": "float", "default": MAX_PERCENT},
            confirm={"type": "int"},
            servers={"type": "list", "elements": "str"},
            punch_percent={"type": "int", "default": 10},
            everywhere={"type": "bool", "default": False},
            **jobs.ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    require_libraries(module)
    with running_job(module, "Repository {}".format(module.params["repository"]), RUNNING) as job:
        report = prune(module, job)
    module.exit_json(**result_of(report))


if __name__ == "__main__":
    main()
