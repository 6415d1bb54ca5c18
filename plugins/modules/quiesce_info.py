#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: quiesce_info
short_description: List a server's holds, and test whether it could be quiesced
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Lists the holds recorded on this server, including those of dead processes.
  - If O(drivers) are given, tests whether each of them could freeze.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  drivers:
    description: Drivers to test, as in M(openisb.backup.quiesce).
    type: list
    elements: dict
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
seealso:
  - module: openisb.backup.quiesce
"""

EXAMPLES = r"""
- name: Could this server be quiesced, and is anything frozen?
  openisb.backup.quiesce_info:
    drivers:
      - name: filesystem
        mounts: [/srv/files]
  register: quiesce
  failed_when: quiesce.checks | rejectattr('ok') | length > 0
"""

RETURN = r"""
holders:
  description: The recorded holds, by run id.
  returned: success
  type: list
  elements: dict
  contains:
    run_id:
      description: The run that the hold belongs to.
      type: str
    state:
      description: As M(openisb.backup.quiesce) returns it. V(absent) if only the record of an ended hold is left.
      type: str
    alive:
      description: Whether its holder, or the holder's partner, runs.
      type: bool
    answers:
      description: Whether it answered. If not, the other values are the last ones recorded.
      type: bool
    leftover:
      description:
        - Whether something may be frozen with no process left to thaw it.
        - M(openisb.backup.quiesce) with O(openisb.backup.quiesce#module:state=thawed) thaws it.
      type: bool
checks:
  description: What the test of each driver found; empty without O(drivers). A wrong option makes a test fail.
  returned: success
  type: list
  elements: dict
  contains:
    driver:
      description: The driver's name.
      type: str
    ok:
      description: Whether a freeze would work.
      type: bool
    message:
      description: What was found, or what is wrong.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.inspection import CannotInspect, inspect


def main():
    module = AnsibleModule(
        argument_spec={
            "drivers": {"type": "list", "elements": "dict"},
            "run_dir": {"type": "path", "default": "/run/openisb"},
        },
        supports_check_mode=True,
    )
    try:
        found = inspect(module.params["run_dir"], module.params["drivers"] or [])
    except CannotInspect as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
