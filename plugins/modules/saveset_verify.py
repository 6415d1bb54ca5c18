#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_verify
short_description: Prove that savesets can be restored
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads savesets back and names everything that is damaged, missing or swapped, with the savesets that it affects.
  - If it finds damage, the module fails, with all problems in RV(problems).
extends_documentation_fragment:
  - openisb.backup.attributes.info
  - openisb.backup.repository
  - openisb.backup.job
options:
  servers:
    description: Only savesets of these servers. All if omitted.
    type: list
    elements: str
  run_id:
    description: Only savesets of this run. All if omitted.
    type: str
  depth:
    description:
      - V(structure) verifies that all parts exist and belong together.
      - V(stored) also reads all stored bytes and verifies them as they are stored.
      - V(full) also decrypts them and verifies every volume against its own digest.
    type: str
    choices: [structure, stored, full]
    default: full
  older_than:
    description:
      - Skip packs that were verified to this depth or a deeper one within this many days. V(0) reads all.
      - Verification records are kept in the repository for the next verification.
    type: float
    default: 0
  limit_bytes:
    description:
      - Start no further pack after this many bytes. Packs verified longest ago come first. V(0) means no limit.
    type: int
    default: 0
  limit_seconds:
    description: Start no further pack after this many seconds of reading packs. V(0) means no limit.
    type: int
    default: 0
seealso:
  - module: openisb.backup.job_info
"""

EXAMPLES = r"""
- name: Verify everything of one run
  openisb.backup.saveset_verify:
    repository: /var/lib/openisb/repository
    run_id: isb-20261123T021500Z-4f1c2a
    job: verify

- name: Verify for an hour each night, so that everything is read once in four weeks
  openisb.backup.saveset_verify:
    repository: /var/lib/openisb/repository
    older_than: 28
    limit_seconds: 3600
    job: verify
"""

RETURN = r"""
savesets:
  description: The savesets that were verified.
  returned: always
  type: list
  elements: dict
problems:
  description: What was found, each with saveset, volume, object and problem. Empty if nothing was.
  returned: always
  type: list
  elements: dict
bytes:
  description: Bytes that were read and verified.
  returned: always
  type: int
bytes_total:
  description: Bytes of all packs of these savesets; 0 for depth V(structure).
  returned: always
  type: int
bytes_verified:
  description: How many of them are verified to this depth, now or within O(older_than), or at any time if that is 0.
  returned: always
  type: int
oldest:
  description: When the pack that was verified longest ago was verified. Empty if some were never verified.
  returned: always
  type: str
seconds:
  description: How long it took.
  returned: always
  type: float
"""

import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries, running_job
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)
from ansible_collections.openisb.backup.plugins.module_utils.host import jobs
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import RUNNING
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format.commit import parse_name


def wanted(params, volume):
    """Whether a volume belongs to the requested servers."""
    return params["servers"] is None or volume.partition("/")[0] in params["servers"]


def choose(repository, params):
    """The requested savesets, and the damaged commits that may be among them, as problems."""
    infos, damaged = repository.scan()
    chosen = [
        info
        for info in infos
        if wanted(params, info.volume) and (params["run_id"] is None or info.run_id == params["run_id"])
    ]
    problems = []
    for name, error in damaged:
        parsed = parse_name(name)
        volume = parsed[0] if parsed else None
        if volume is None or wanted(params, volume):
            problems.append({"saveset": None, "volume": volume, "object": name, "problem": error.cause})
    return chosen, problems


def unproven(servers, savesets, problems):
    """The servers that have no saveset. Damage whose server is not known may be any server's."""
    volumes = [info.volume for info in savesets] + [problem["volume"] for problem in problems]
    if None in volumes:
        return []
    return [name for name in servers if name not in {volume.partition("/")[0] for volume in volumes}]


def verify(module, job):
    """Verify the chosen savesets; return the module's result."""
    params = module.params
    repository = open_repository(module)
    savesets, problems = choose(repository, params)
    nothing_of = unproven(params["servers"] or [], savesets, problems)
    if nothing_of or not (savesets or problems):
        module.fail_json(
            msg="There is no saveset to verify{}: correct the run id or the servers (catalog.yml lists all)".format(
                " of " + ", ".join(nothing_of) if nothing_of else ""
            )
        )
    job.tell(RUNNING)
    everything = params["servers"] is None and params["run_id"] is None
    report = repository.verify(
        None if everything else savesets,  # None: also what no saveset uses, and damaged commits
        depth=params["depth"],
        older_than=datetime.timedelta(days=params["older_than"]) if params["older_than"] else None,
        limit_bytes=params["limit_bytes"] or None,
        limit_seconds=params["limit_seconds"] or None,
        record=not module.check_mode,
        progress=lambda now: job.tell_progress(now.bytes_done, now.bytes_total, now.elapsed_s),
    )
    return {
        "savesets": [saveset_facts(info) for info in savesets],
        "problems": report.problems if everything else problems + report.problems,
        "bytes": report.bytes,
        "bytes_total": report.bytes_total,
        "bytes_verified": report.bytes_verified,
        "oldest": report.oldest.isoformat() if report.oldest else "",
        "seconds": report.seconds,
    }


def fail_damaged(module, result):
    """Fail with every saveset that is affected."""
    problems = result["problems"]
    hurt = sorted({"{} of volume {}".format(item["saveset"], item["volume"]) for item in problems if item["saveset"]})
    hurts = "which affects {} saveset(s): {}".format(len(hurt), ", ".join(hurt)) if hurt else "which affects no saveset"
    module.fail_json(
        msg=f"Damage found, {hurts}. First: {problems[0]['object']}: {problems[0]['problem']}. Keep the repository as "
        "it is, and restore what is damaged from another copy of it",
        **result,
    )


def main():
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENTS,
            servers={"type": "list", "elements": "str"},
            run_id={"type": "str"},
            depth={"type": "str", "choices": ["structure", "stored", "full"], "default": "full"},
            older_than={"type": "float", "default": 0},
            limit_bytes={"type": "int", "default": 0},
            limit_seconds={"type": "int", "default": 0},
            **jobs.ARGUMENTS,
        ),
        supports_check_mode=True,
    )
    require_libraries(module)
    with running_job(module, "Repository {}".format(module.params["repository"]), RUNNING) as job:
        result = verify(module, job)
    if result["problems"]:
        fail_damaged(module, result)
    module.exit_json(changed=False, **result)


if __name__ == "__main__":
    main()
