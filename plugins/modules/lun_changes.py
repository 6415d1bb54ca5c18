#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_changes
short_description: Report which parts of LUNs have changed since the snapshot of an earlier run
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - For the storage drivers C(btrfs) and C(file), compares where the filesystem has put each LUN of a run's snapshot
    with where it has put the same LUN in an earlier run's snapshot, the base. Reads no data.
  - Anything uncertain counts as changed. If changes cannot be determined (no base, another size, another filesystem,
    blocks that are being moved), the module returns a reason and no changes, and still succeeds.
  - Gives each LUN of the snapshot a unique identity, by which a saveset records what it was made from.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.snapshots
options:
  run_id:
    description: The run whose snapshot is the new one.
    type: str
    required: true
  luns:
    description: Serials of the LUNs.
    type: list
    elements: str
    required: true
  bases:
    description: For each LUN, by serial, the run whose snapshot is its base; empty or omitted if it has none.
    type: dict
    default: {}
seealso:
  - module: openisb.backup.lun_snapshot
  - module: openisb.backup.block_backup
"""

EXAMPLES = r"""
- name: Find out what has changed since the last run
  openisb.backup.lun_changes:
    driver: btrfs
    directory: /srv/pool/snapshots
    run_id: isb-20261123T021500Z-4f1c2a
    luns: [600a098000000011]
    bases:
      600a098000000011: isb-20261122T021500Z-90be12
"""

RETURN = r"""
luns:
  description:
    - For each LUN, by serial, its C(id), empty if it can have none; C(since), the id of its base, empty if changes
      cannot be determined; C(reason), which then says why; C(size) in bytes; C(count), the number of changed extents;
      and C(bytes), their total size.
    - Also the C(extents) themselves, as M(openisb.backup.block_backup) takes them, which are pairs of gap and length in
      bytes, as unsigned 64-bit numbers, deflated and base64-encoded.
  returned: success
  type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import NoChanges, changes_between, pack
from ansible_collections.openisb.backup.plugins.module_utils.storage.snapshots import SnapshotError, SnapshotFolder

NOTHING = {"id": "", "since": "", "reason": "", "size": 0, "count": 0, "bytes": 0, "extents": ""}


def changes_of(folder, run_id, serial, base_run, create):
    """The result for one LUN. ``base_run``: None or empty if it has none; ``create``: whether it may get an id."""
    told = dict(NOTHING)
    try:
        told["size"] = os.stat(folder.lun_path(run_id, serial)).st_size
        told["id"] = folder.identity(run_id, serial, create)
        if not base_run:
            raise NoChanges("no earlier saveset")
        told.update(changes_since(folder, run_id, serial, base_run))
    except (NoChanges, SnapshotError, OSError) as error:
        told["reason"] = str(error)
    return told


def changes_since(folder, run_id, serial, base_run):
    """The part of the result that needs a base."""
    since = folder.identity(base_run, serial)
    folder.check_quiet()
    found = changes_between(folder.lun_path(base_run, serial), folder.lun_path(run_id, serial))
    folder.check_quiet()
    return {"since": since, "count": len(found), "bytes": found.bytes, "extents": pack(found)}


def main():
    module = AnsibleModule(
        argument_spec={
            "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
            "directory": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "luns": {"type": "list", "elements": "str", "required": True},
            "bases": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    run_id, create = module.params["run_id"], not module.check_mode
    folder = SnapshotFolder(module.params["driver"], module.params["directory"])
    luns, bases = module.params["luns"], module.params["bases"]
    nameless = [serial for serial in luns if not changes_of(folder, run_id, serial, "", False)["id"]]
    told = {serial: changes_of(folder, run_id, serial, bases.get(serial), create) for serial in luns}
    named = {serial: told[serial]["id"] for serial in nameless if told[serial]["id"]}
    module.exit_json(
        changed=bool(named if create else nameless),
        luns=told,
        diff={"before": {}, "after": named},
    )


if __name__ == "__main__":
    main()
