#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: idr_host_info
short_description: Report whether a DR host is ready for a drill
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Looks at what a drill needs on this host before it starts anything, and reports all problems at once. Examples are
    mount points that are in use or have files in them, LUNs of production that are attached here, targets that another
    drill uses or that M(openisb.backup.restore_target) would refuse, programs that are not installed, and too little
    disk space.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  volumes:
    description:
      - The volumes that the drill brings up on this host, each a dict with C(volume), C(name), C(serial), C(size),
        C(dr_mount), C(target), C(filesystem) and C(block_size). The last four may be empty, or C(0).
    type: list
    elements: dict
    required: true
  source:
    description: Where the drill takes the volumes from.
    type: str
    choices: [instant, restore, storage]
    default: instant
  mode:
    description: V(test) for a drill, V(failover) for a real one.
    type: str
    choices: [test, failover]
    default: test
  scratch:
    description: Folder for what the drill writes. It need not exist yet.
    type: path
    default: /var/tmp
  overwrite:
    description: Identities of targets that may be overwritten, as those of M(openisb.backup.restore_target).
    type: list
    elements: str
    default: []
  state_dir:
    description: Folder for state that must survive a restart of the host.
    type: path
    default: /var/lib/openisb
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
seealso:
  - module: openisb.backup.idr_lun
"""

EXAMPLES = r"""
- name: Find out whether this host is ready
  openisb.backup.idr_host_info:
    volumes:
      - volume: fs1/m
        name: m
        serial: 600a0980000000000000000000000f51
        size: 107374182400
        dr_mount: /srv/idr/fs1/srv/m
        target: ""
        filesystem: xfs
  register: ready
"""

RETURN = r"""
problems:
  description: What is in the way, each with its remedy; empty if the host is ready.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.luns import ready
from ansible_collections.openisb.backup.plugins.module_utils.luns.disks import Luns
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError
from ansible_collections.openisb.backup.plugins.module_utils.luns.targets import ARGUMENTS


def main():
    module = AnsibleModule(
        argument_spec={
            "volumes": {"type": "list", "elements": "dict", "required": True},
            "source": {"type": "str", "choices": ["instant", "restore", "storage"], "default": "instant"},
            "mode": {"type": "str", "choices": ["test", "failover"], "default": "test"},
            "scratch": {"type": "path", "default": "/var/tmp"},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            **ARGUMENTS,
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        luns = Luns(params["run_dir"]).of_drill()
        asked = (params[name] for name in ("volumes", "source", "mode", "scratch"))
        problems = ready.problems(*asked, luns, {name: params[name] for name in (*ARGUMENTS, "run_dir")})
    except (LunError, OSError) as error:
        module.fail_json(msg=f"This host cannot be inspected: {error}")
    module.exit_json(changed=False, problems=problems)


if __name__ == "__main__":
    main()
