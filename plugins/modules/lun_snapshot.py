#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_snapshot
short_description: Delete LUNs from a run's snapshot
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Deletes LUNs from the snapshot that a run made on a storage host with the storage driver C(btrfs) or C(file), and
    the snapshot itself with its last LUN. So one server can be cleaned up alone while the others are still being read.
  - Touches nothing that does not carry the run id. The snapshot is made by the role P(openisb.backup.snapshot#role).
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  driver:
    description: The storage driver that made the snapshot.
    type: str
    choices: [btrfs, file]
    required: true
  directory:
    description: The folder that holds the snapshots.
    type: path
    required: true
  run_id:
    description: The run whose snapshot it is.
    type: str
    required: true
  luns:
    description: Serials of the LUNs to delete. All where it is left out.
    type: list
    elements: str
  state:
    description: The LUNs are gone from the snapshot.
    type: str
    choices: [absent]
    default: absent
seealso:
  - module: openisb.backup.lun_snapshot_info
"""

EXAMPLES = r"""
- name: Clean up after one server
  openisb.backup.lun_snapshot:
    driver: btrfs
    directory: /srv/pool/snapshots
    run_id: isb-20261123T021500Z-4f1c2a
    luns: [600a098000000011]
"""

RETURN = r"""
luns:
  description: Serials of the LUNs that the snapshot holds now.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.snapshots import SnapshotError, SnapshotFolder


def main():
    module = AnsibleModule(
        argument_spec={
            "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
            "directory": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "luns": {"type": "list", "elements": "str"},
            "state": {"type": "str", "choices": ["absent"], "default": "absent"},
        },
        supports_check_mode=True,
    )
    run_id, luns = module.params["run_id"], module.params["luns"]
    folder = SnapshotFolder(module.params["driver"], module.params["directory"])
    before = folder.luns(run_id)
    after = [] if luns is None else [serial for serial in before if serial not in luns]
    if not module.check_mode:
        try:
            folder.delete(run_id, luns)
        except (SnapshotError, OSError) as error:
            module.fail_json(msg=f"The snapshot of run {run_id} was not deleted: {error}")
    module.exit_json(changed=before != after, luns=after, diff={"before": {"luns": before}, "after": {"luns": after}})


if __name__ == "__main__":
    main()
