#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_jobs
short_description: End the jobs that a run left on this host
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Backups run detached from Ansible, so that a lost connection does not end them. If their run has died, this module
    ends them, and removes their keys, their results and what Ansible had put there to start them.
  - Ends only jobs of O(run_id). What they wrote to the repository is removed by the next prune.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  run_id:
    description: The run.
    type: str
    required: true
  state:
    description: With V(absent), no job of the run is left.
    type: str
    choices: [absent]
    default: absent
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
seealso:
  - module: openisb.backup.job_info
"""

EXAMPLES = r"""
- name: End the jobs of a run that died
  openisb.backup.run_jobs:
    run_id: isb-20261123T021500Z-4f1c2a
"""

RETURN = r"""
jobs:
  description: Names of the jobs that were found.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host import jobs
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import JournalError, check_run_id


def main():
    module = AnsibleModule(
        argument_spec={
            "run_id": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["absent"], "default": "absent"},
            "run_dir": {"type": "path", "default": "/run/openisb"},
        },
        supports_check_mode=True,
    )
    run_dir = module.params["run_dir"]
    try:
        names = jobs.of_run(run_dir, check_run_id(module.params["run_id"]))
        left = [] if module.check_mode else [name for name in names if not jobs.end(run_dir, name)]
    except (JournalError, OSError) as error:
        module.fail_json(msg=f"Jobs of run {module.params['run_id']} cannot be ended: {error}")
    if left:
        module.fail_json(msg=f"Jobs {', '.join(left)} do not end: end their processes by hand, see {run_dir}/jobs")
    module.exit_json(changed=bool(names), jobs=names, diff={"before": {"jobs": names}, "after": {"jobs": []}})


if __name__ == "__main__":
    main()
