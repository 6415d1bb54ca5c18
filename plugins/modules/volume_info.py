#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: volume_info
short_description: Find a server's volumes by the serials of their LUNs
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Finds each volume by the serial of its LUN, verifies that it is what is mounted where the inventory says, and
    returns its size and filesystem.
  - Fails with one message that names every volume that is missing or is not what the inventory says.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  volumes:
    description: The volumes of the server.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the volume, unique on the server.
        type: str
        required: true
      serial:
        description: Serial of the LUN, 16 to 32 lowercase hex digits, as in the links below C(/dev/disk/by-id).
        type: str
        required: true
      mount:
        description: Where the LUN's filesystem is mounted.
        type: path
      path:
        description: The file that is the volume, for volumes that are files rather than LUNs.
        type: path
"""

EXAMPLES = r"""
- name: Find the volumes
  openisb.backup.volume_info:
    volumes:
      - name: m
        serial: 600a098000000011
        mount: /srv/m
"""

RETURN = r"""
volumes:
  description: >-
    Each volume with its name, serial, device, size (bytes), mount and filesystem.
    C(sector_size) is that of the LUN, and C(block_size) the smallest block that its filesystem reads and writes.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.volumes import VolumeError, describe


def main():
    module = AnsibleModule(
        argument_spec={
            "volumes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "serial": {"type": "str", "required": True},
                    "mount": {"type": "path"},
                    "path": {"type": "path"},
                },
            }
        },
        supports_check_mode=True,
    )
    found, problems = [], []
    for volume in module.params["volumes"]:
        try:
            found.append(describe(volume))
        except (VolumeError, OSError) as error:
            problems.append(str(error))
    if problems:
        module.fail_json(msg="; ".join(problems))
    module.exit_json(changed=False, volumes=found)


if __name__ == "__main__":
    main()
