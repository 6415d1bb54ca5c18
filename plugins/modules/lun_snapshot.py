#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_snapshot
short_description: Delete LUNs from a run's snapshot, or keep them as the base of the next run
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Deletes LUNs from the snapshot that a run made on a storage host with the storage driver C(btrfs) or C(file), and
    the snapshot itself with its last LUN. So one server can be cleaned up while the others are still being read.
  - Or keeps them as the base from which M(openisb.backup.lun_changes) determines in the next run what has changed. The
    same LUNs are then deleted from the snapshots of all other runs, so that each LUN has one base.
  - The snapshot is made by the role P(openisb.backup.snapshot#role).
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.snapshots
options:
  run_id:
    description: The run whose snapshot it is.
    type: str
    required: true
  luns:
    description: Serials of the LUNs to delete or to keep. If omitted, all LUNs of the snapshot.
    type: list
    elements: str
  members:
    description:
      - Serials of all LUNs that take part in the run. Any others are deleted from its snapshot, because a driver may
        take all LUNs of a subvolume.
    type: list
    elements: str
  every_run:
    description: With O(state=absent), whether to delete the LUNs from the snapshots of all other runs too.
    type: bool
    default: false
  kept:
    description:
      - With O(state=base), whether to keep any other run from ever deleting LUNs of this snapshot, because somebody
        wants to look at it. O(state=absent) for its own run deletes it.
    type: bool
    default: false
  state:
    description:
      - With V(absent), the LUNs are deleted from the snapshot.
      - With V(base), they stay as the base of the next run. A copy that shares no blocks with its original is useless
        as a base and is deleted.
    type: str
    choices: [absent, base]
    default: absent
seealso:
  - module: openisb.backup.lun_changes
  - module: openisb.backup.lun_snapshot_info
"""

EXAMPLES = r"""
- name: Clean up after a server whose backup failed
  openisb.backup.lun_snapshot:
    driver: btrfs
    directory: /srv/pool/snapshots
    run_id: isb-20261123T021500Z-4f1c2a
    luns: [600a098000000011]

- name: Keep the LUN of a server that was backed up as the base of the next run
  openisb.backup.lun_snapshot:
    driver: btrfs
    directory: /srv/pool/snapshots
    run_id: isb-20261123T021500Z-4f1c2a
    luns: [600a098000000011]
    state: base
"""

RETURN = r"""
luns:
  description: Serials of the LUNs that the snapshot now holds.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import shares_blocks
from ansible_collections.openisb.backup.plugins.module_utils.storage.snapshots import (
    SnapshotError,
    SnapshotFolder,
    holdings_after,
)


def is_to_keep(params):
    """Whether no other run may ever delete LUNs of the snapshot."""
    return params["state"] == "base" and params["kept"]


def is_useless(folder, run_id, serial):
    """Whether a LUN cannot be the base of the next run: a full copy does not show what has changed."""
    try:
        return not shares_blocks(folder.lun_path(run_id, serial))
    except OSError:
        return True


def wanted(folder, before, params):
    """Which LUNs each snapshot is to hold: a dict of lists by run id."""
    run_id = params["run_id"]
    here = before.get(run_id, [])
    luns = here if params["luns"] is None else params["luns"]
    kept = [run for run in before if folder.is_kept(run)]
    if params["state"] == "absent":
        return holdings_after(before, run_id, luns, luns if params["every_run"] else [], params["members"], kept)
    if is_to_keep(params):
        return holdings_after(before, run_id, [], luns, None, kept)
    useless = [serial for serial in luns if serial in here and is_useless(folder, run_id, serial)]
    return holdings_after(before, run_id, useless, luns, params["members"], kept)


def apply(folder, before, after, params):
    """Make the snapshots hold what they are to hold."""
    if is_to_keep(params):
        folder.keep(params["run_id"])
    for run_id, luns in after.items():
        gone = [serial for serial in before[run_id] if serial not in luns]
        if gone or (run_id == params["run_id"] and not luns):
            folder.delete(run_id, gone)


def main():
    module = AnsibleModule(
        argument_spec={
            "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
            "directory": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "luns": {"type": "list", "elements": "str"},
            "members": {"type": "list", "elements": "str"},
            "every_run": {"type": "bool", "default": False},
            "kept": {"type": "bool", "default": False},
            "state": {"type": "str", "choices": ["absent", "base"], "default": "absent"},
        },
        supports_check_mode=True,
    )
    run_id = module.params["run_id"]
    folder = SnapshotFolder(module.params["driver"], module.params["directory"])
    before = {snapshot["run_id"]: snapshot["luns"] for snapshot in folder.snapshots()}
    after = wanted(folder, before, module.params)
    marks = is_to_keep(module.params) and not folder.is_kept(run_id)
    if not module.check_mode:
        try:
            apply(folder, before, after, module.params)
        except (SnapshotError, OSError) as error:
            module.fail_json(msg=f"The snapshots of run {run_id} were not updated: {error}")
    module.exit_json(
        changed=marks or before != after,
        luns=after.get(run_id, []),
        diff={"before": {"luns": before}, "after": {"luns": after}},
    )


if __name__ == "__main__":
    main()
