#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_target
short_description: Check that a device or file can be restored to
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Refuses, before anything is written, what is too small; what anybody uses (a mount, swap, a device built on it, a
    program that has it open, a drill that has a LUN of it); and what holds anything, whatever that is, in words.
  - What it holds may go where O(overwrite) names it, where it is on record as a standby of O(volume), or where a
    restore of O(volume) has written it, and nobody has since.
  - This is to know in time, and changes nothing. M(openisb.backup.nbd_export) and M(openisb.backup.block_restore) ask
    the same again, and hold the target from then on until all is written.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.target
options:
  path:
    description: The block device or file. A file that is not there can be made.
    type: path
    required: true
  size:
    description: Size of the volume in bytes.
    type: int
    required: true
  volume:
    description: The volume that is to be restored, as C(server/name).
    type: str
    required: true
  run_dir:
    description: Folder for volatile state, where the LUNs of drills are on record.
    type: path
    default: /run/openisb
requirements:
  - wipefs (util-linux)
seealso:
  - module: openisb.backup.block_restore
  - module: openisb.backup.standby
"""

EXAMPLES = r"""
- name: Check a file that is restored to
  openisb.backup.restore_target:
    path: /srv/dr/fs1-m.img
    size: 268435456
    volume: fs1/m

- name: Check a disk whose content may go, as it is the very one that is meant
  openisb.backup.restore_target:
    path: /dev/sdb
    size: 268435456
    volume: fs1/m
    overwrite: [wwn-0x600140500000000000000000000000a1]
"""

RETURN = r"""
path:
  description: The block device or file, without links.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import TargetError
from ansible_collections.openisb.backup.plugins.module_utils.targets import ARGUMENTS, Target


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "size": {"type": "int", "required": True},
            "volume": {"type": "str", "required": True},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            **ARGUMENTS,
        },
        supports_check_mode=True,
    )
    target = Target(**module.params)
    try:
        target.check()
    except (TargetError, OSError) as error:
        module.fail_json(msg=f"Cannot restore: {error}")
    module.exit_json(changed=False, path=target.path)


if __name__ == "__main__":
    main()
