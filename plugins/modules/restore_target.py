#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_target
short_description: Test whether a device or file can be restored to
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Before anything is written, refuses a target that is too small, that is in use (a mount, swap, a device built on it,
    a program that has it open, a drill with a LUN of it), or that holds anything. The message says what it holds.
  - What it holds may be overwritten if O(overwrite) names the target, if it is on record as a standby of O(volume), or
    if a restore of O(volume) wrote it and nobody has written to it since.
  - This module finds problems early, and changes nothing. M(openisb.backup.nbd_export) and
    M(openisb.backup.block_restore) run the same tests again, and hold the target from then on until everything is
    written.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.target
options:
  path:
    description: The block device or file. A missing file can be created.
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
  block_size:
    description:
      - The smallest block, in bytes, that the content of the volume reads and writes, as recorded in savesets; V(0) if
        it is not known.
      - A disk with larger sectors is refused, because the filesystem could not be mounted there.
    type: int
    default: 0
  run_dir:
    description: Folder for volatile state, where the LUNs of drills are recorded.
    type: path
    default: /run/openisb
requirements:
  - wipefs (util-linux)
seealso:
  - module: openisb.backup.block_restore
  - module: openisb.backup.standby
"""

EXAMPLES = r"""
- name: Test a file that is to be restored to
  openisb.backup.restore_target:
    path: /srv/dr/fs1-m.img
    size: 268435456
    volume: fs1/m

- name: Test a disk whose content may be overwritten, identified by its WWN
  openisb.backup.restore_target:
    path: /dev/sdb
    size: 268435456
    volume: fs1/m
    overwrite: [wwn-0x600140500000000000000000000000a1]
"""

RETURN = r"""
path:
  description: The block device or file, with links resolved.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.luns.targets import ARGUMENTS, BLOCK_SIZE, Target
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import TargetError


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "size": {"type": "int", "required": True},
            "volume": {"type": "str", "required": True},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            **ARGUMENTS,
            **BLOCK_SIZE,
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
