#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: idr_mount
short_description: Mount a filesystem from a LUN of a drill
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Mounts a device that M(openisb.backup.idr_lun) has made. The mount is in no fstab, so it does not survive a restart.
  - It is unmounted with the LUN, by M(openisb.backup.idr_lun) with O(openisb.backup.idr_lun#module:state=absent).
  - Other mounts of the host do not matter, whatever bytes their names contain.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  device:
    description: The device, such as that of one of a LUN's parts.
    type: path
    required: true
  path:
    description: Where to mount it. A missing folder is created. Nothing else may be mounted there.
    type: path
    required: true
  fstype:
    description: The type of the filesystem, as the filter P(openisb.backup.idr_mount_type#filter) returns it.
    type: str
    required: true
  opts:
    description: The mount options, as the filter P(openisb.backup.idr_mount_options#filter) returns them.
    type: str
    required: true
  timeout:
    description: Seconds that mounting may take. A filesystem that was not unmounted cleanly replays its journal first.
    type: float
    default: 600
seealso:
  - module: openisb.backup.idr_lun
"""

EXAMPLES = r"""
- name: Mount what is on a LUN
  openisb.backup.idr_mount:
    device: "{{ made.lun.parts[0].device }}"
    path: /srv/dr/fs1/m
    fstype: "{{ made.lun.parts[0].type | openisb.backup.idr_mount_type }}"
    opts: "{{ made.lun.parts[0].type | openisb.backup.idr_mount_options(made.lun.writable) }}"
"""

RETURN = r"""
path:
  description: Where it is mounted.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.luns import mounts
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError


def main():
    module = AnsibleModule(
        argument_spec={
            "device": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "fstype": {"type": "str", "required": True},
            "opts": {"type": "str", "required": True},
            "timeout": {"type": "float", "default": 600},
        },
        supports_check_mode=True,
    )
    params = module.params
    device, point = params["device"], params["path"]
    try:
        there = mounts.is_there(device, point)
        if not there and not module.check_mode:
            mounts.mount(device, point, params["fstype"], params["opts"], params["timeout"])
    except (LunError, OSError) as error:
        module.fail_json(msg=f"The filesystem was not mounted: {error}")
    diff = {"before": {"mounted": device if there else ""}, "after": {"mounted": device}}
    module.exit_json(changed=not there, path=point, diff=diff)


if __name__ == "__main__":
    main()
