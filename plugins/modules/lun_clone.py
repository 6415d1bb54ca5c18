#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_clone
short_description: Clone LUNs from a snapshot for a drill
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Makes writable clones of LUNs from a run's snapshot on a storage host with the storage driver C(btrfs) or C(file),
    so that a drill never writes to the snapshot itself.
  - On btrfs a clone shares its blocks with the snapshot and is created instantly.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.snapshots
options:
  drill:
    description: The drill that the clones are for.
    type: str
    required: true
  run_id:
    description: The run whose snapshot is cloned. Required with O(state=present).
    type: str
  luns:
    description: Serials of the LUNs. Required with O(state=present).
    type: list
    elements: str
  state:
    description: With V(present), these LUNs are cloned; with V(absent), the drill has no clones.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: openisb.backup.lun_snapshot
"""

EXAMPLES = r"""
- name: Clone a LUN
  openisb.backup.lun_clone:
    driver: btrfs
    directory: /srv/pool/snapshots
    drill: idr-20261128T210000Z-4f1c2a
    run_id: isb-20261123T021500Z-4f1c2a
    luns: [600a098000000011]
"""

RETURN = r"""
clones:
  description: The clones that the drill has now, by serial, each with path and size in bytes.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.storage.clones import CloneError, Clones


def settle(clones, params):
    """Give the drill these clones, or delete all that it has."""
    if params["state"] == "present":
        clones.make(params["run_id"], params["luns"])
    else:
        clones.delete()


def main():
    module = AnsibleModule(
        argument_spec={
            "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
            "directory": {"type": "path", "required": True},
            "drill": {"type": "str", "required": True},
            "run_id": {"type": "str"},
            "luns": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("run_id", "luns"))],
        supports_check_mode=True,
    )
    params = module.params
    wanted = set(params["luns"]) if params["state"] == "present" else set()
    try:
        clones = Clones(params["driver"], params["directory"], params["drill"])
        before = clones.list()
        changed = bool(wanted - set(before)) if params["state"] == "present" else bool(before)
        if changed and not module.check_mode:
            settle(clones, params)
        after = clones.list()
    except (CloneError, OSError) as error:
        module.fail_json(msg="Clones of drill {}: {}".format(params["drill"], error))
    module.exit_json(
        changed=changed,
        clones=after,
        diff={"before": {"luns": sorted(before)}, "after": {"luns": sorted(wanted.union(before) if wanted else [])}},
    )


if __name__ == "__main__":
    main()
