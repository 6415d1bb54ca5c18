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
  - Reads savesets back and names everything that is damaged, missing or swapped, with the savesets that it hurts.
  - Finding damage makes the module fail, with all problems in RV(problems).
extends_documentation_fragment:
  - openisb.backup.attributes.info
  - openisb.backup.repository
  - openisb.backup.job
options:
  servers:
    description: Only savesets of these servers. All where it is left out.
    type: list
    elements: str
  run_id:
    description: Only savesets of this run. All where it is left out.
    type: str
  depth:
    description:
      - V(structure) checks that all parts are there and belong together.
      - V(stored) also reads all stored bytes and checks them as they are stored.
      - V(full) also decrypts them and proves every volume against its own digest.
    type: str
    choices: [structure, stored, full]
    default: full
  older_than:
    description:
      - Pass over packs that were verified to this depth or a deeper one within so many days. V(0) reads all.
      - What is verified is written down in the repository, so that the next verification knows.
    type: float
    default: 0
  limit_bytes:
    description: Begin no further pack after so many bytes. What was verified longest ago comes first. V(0) is no limit.
    type: int
    default: 0
  limit_seconds:
    description: Begin no further pack after so many seconds of reading packs. V(0) is no limit.
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

- name: An hour each night, so that everything is read once in four weeks
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
  description: What was found, each with saveset, volume, object and problem. Empty where all is well.
  returned: always
  type: list
  elements: dict
bytes:
  description: Bytes that were read and checked.
  returned: always
  type: int
bytes_total:
  description: Bytes of all packs of these savesets; 0 for depth V(structure).
  returned: always
  type: int
bytes_verified:
  description: How many of them are verified to this depth, now or within O(older_than); at any time, where that is 0.
  returned: always
  type: int
oldest:
  description: When the pack was verified for which that is longest ago. Empty when some never were.
  returned: always
  type: str
seconds:
  description: How long it took.
  returned: always
  type: float
"""

import datetime

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.jobs import RUNNING
from ansible_collections.openisb.backup.plugins.module_utils.saveset.commit import parse_name
from ansible_collections.openisb.backup.plugins.module_utils.saveset_module import (
    JOB_ARGUMENTS,
    REPOSITORY_ARGUMENTS,
    open_repository,
    require_libraries,
    running_job,
    saveset_facts,
)


def wanted(params, volume):
    """Whether a volume is of the servers that were asked for."""
    return params["servers"] is None or volume.partition("/")[0] in params["servers"]


def choose(repository, params):
    """The savesets that were asked for, and the damaged commits that may be among them, as problems."""
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


def verify(module, job):
    """Verify the chosen savesets, and return what the module returns."""
    params = module.params
    repository = open_repository(module)
    savesets, problems = choose(repository, params)
    if not savesets and not problems:
        module.fail_json(msg="There is no saveset to verify: correct the run id or the servers (catalog.yml lists all)")
    job.tell(RUNNING)
    everything = params["servers"] is None and params["run_id"] is None
    report = repository.verify(
        None if everything else savesets,  # everything: also what no saveset uses, and commits that are damaged
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
    """Fail with every saveset that is hurt."""
    problems = result["problems"]
    hurt = sorted({"{} of volume {}".format(item["saveset"], item["volume"]) for item in problems if item["saveset"]})
    hurts = "it hurts {} saveset(s): {}".format(len(hurt), ", ".join(hurt)) if hurt else "it hurts no saveset"
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
            **JOB_ARGUMENTS,
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
