#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: server_info
short_description: Test whether a file server can take part in a run
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Tests whether each of its quiesce drivers could freeze, and lists the holds that are recorded there, as
    M(openisb.backup.quiesce_info) does.
  - Finds each volume by the serial of its LUN, verifies that it is what is mounted where the inventory says, and
    returns its size and filesystem.
  - Fails with one message that names every volume that is missing or is not what the inventory says.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  drivers:
    description: Drivers to test, as in M(openisb.backup.quiesce).
    type: list
    elements: dict
    required: true
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
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
seealso:
  - module: openisb.backup.quiesce_info
"""

EXAMPLES = r"""
- name: Could this server take part?
  openisb.backup.server_info:
    drivers:
      - name: filesystem
        mounts: [/srv/m]
    volumes:
      - name: m
        serial: 600a098000000011
        mount: /srv/m
"""

RETURN = r"""
holders:
  description: The recorded holds, as M(openisb.backup.quiesce_info) returns them.
  returned: success
  type: list
  elements: dict
checks:
  description: What the test of each driver found, with driver, ok and message. A wrong option makes a test fail.
  returned: success
  type: list
  elements: dict
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
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.inspection import CannotInspect, inspect

VOLUME = {
    "name": {"type": "str", "required": True},
    "serial": {"type": "str", "required": True},
    "mount": {"type": "path"},
    "path": {"type": "path"},
}


def find(module):
    """Every volume, or the end of the module with what is wrong with any of them."""
    found, problems = [], []
    for volume in module.params["volumes"]:
        try:
            found.append(describe(volume))
        except (VolumeError, OSError) as error:
            problems.append(str(error))
    if problems:
        module.fail_json(msg="; ".join(problems))
    return found


def main():
    module = AnsibleModule(
        argument_spec={
            "drivers": {"type": "list", "elements": "dict", "required": True},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            "volumes": {"type": "list", "elements": "dict", "required": True, "options": VOLUME},
        },
        supports_check_mode=True,
    )
    try:
        found = inspect(module.params["run_dir"], module.params["drivers"])
    except CannotInspect as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=False, volumes=find(module), **found)


if __name__ == "__main__":
    main()
