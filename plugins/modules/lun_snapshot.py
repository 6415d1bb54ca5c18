#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_snapshot
short_description: Release LUNs of a run's snapshot, deleting them or keeping them as the base of the next run
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Deletes LUNs from the snapshot that a run made on a storage host with the storage driver C(btrfs) or C(file), and
    the snapshot itself with its last LUN. So one server can be cleaned up while the others are still being read.
  - Keeps other LUNs as the base from which M(openisb.backup.lun_map) determines in the next run what has changed. They
    are then deleted from the snapshots of all other runs, so that each LUN has one base.
  - Ends the exports of all these LUNs first.
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
    description: Serials of the LUNs to delete. If both this and O(bases) are omitted, all LUNs of the snapshot.
    type: list
    elements: str
  bases:
    description:
      - Serials of the LUNs to keep as the base of the next run. A copy that shares no blocks with its original is
        useless as a base and is deleted, unless O(kept) is set.
    type: list
    elements: str
  members:
    description:
      - Serials of all LUNs that take part in the run. Any others are deleted from its snapshot, because a driver may
        take all LUNs of a subvolume. Not with O(kept).
    type: list
    elements: str
  every_run:
    description: Whether to delete O(luns) from the snapshots of all other runs too.
    type: bool
    default: false
  kept:
    description:
      - Whether to keep any other run from ever deleting LUNs of this snapshot, because somebody wants to look at it.
        Only the deletion of all its LUNs for its own run deletes it.
    type: bool
    default: false
  run_dir:
    description: Folder for volatile state, in which the exports are recorded.
    type: path
    default: /run/openisb
seealso:
  - module: openisb.backup.lun_map
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
    bases: [600a098000000011]
"""

RETURN = r"""
luns:
  description: Serials of the LUNs that the snapshot now holds.
  returned: success
  type: list
  elements: str
ended:
  description: Serials of the LUNs whose exports were ended; in check mode, of those whose exports would be.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import ExportError, Exports
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import shares_blocks
from ansible_collections.openisb.backup.plugins.module_utils.storage.snapshots import (
    SnapshotError,
    SnapshotFolder,
    export_name,
    holdings_after,
)

ARGUMENTS = {
    "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
    "directory": {"type": "path", "required": True},
    "run_id": {"type": "str", "required": True},
    "luns": {"type": "list", "elements": "str"},
    "bases": {"type": "list", "elements": "str"},
    "members": {"type": "list", "elements": "str"},
    "every_run": {"type": "bool", "default": False},
    "kept": {"type": "bool", "default": False},
    "run_dir": {"type": "path", "default": "/run/openisb"},
}


def is_useless(folder, run_id, serial):
    """Whether a LUN cannot be the base of the next run: a full copy does not show what has changed."""
    try:
        return not shares_blocks(folder.lun_path(run_id, serial))
    except OSError:
        return True


def chosen(params, here):
    """The LUNs to delete and those to keep as a base; ``here``: all that the snapshot holds."""
    if params["luns"] is None and params["bases"] is None and not params["kept"]:
        return here, []
    return params["luns"] or [], params["bases"] or []


def wanted(folder, before, params, luns, bases):
    """Which LUNs each snapshot is to hold: a dict of lists by run id."""
    run_id, kept = params["run_id"], params["kept"]
    here = before.get(run_id, [])
    protected = [run for run in before if folder.is_kept(run)]
    useless = [serial for serial in bases if not kept and serial in here and is_useless(folder, run_id, serial)]
    after = holdings_after(before, run_id, useless, bases, None, protected)
    members = None if kept else params["members"]
    return holdings_after(after, run_id, luns, luns if params["every_run"] else [], members, protected)


def end_exports(exports, run_id, luns, check_mode):
    """End the exports of LUNs, and return the serials of those that had one. One that does not end stops no other."""
    there = [serial for serial in luns if exports.get(export_name(run_id, serial))]
    problems = []
    for serial in there if not check_mode else []:
        try:
            exports.stop(export_name(run_id, serial))
        except (ExportError, OSError) as error:
            problems.append(str(error))
    if problems:
        raise ExportError("; ".join(problems))
    return there


def apply(folder, before, after, params):
    """Make the snapshots hold what they are to hold."""
    if params["kept"]:
        folder.keep(params["run_id"])
    for run_id, luns in after.items():
        gone = [serial for serial in before[run_id] if serial not in luns]
        if gone or (run_id == params["run_id"] and not luns):
            folder.delete(run_id, gone)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params, run_id = module.params, module.params["run_id"]
    folder = SnapshotFolder(params["driver"], params["directory"])
    before = {snapshot["run_id"]: snapshot["luns"] for snapshot in folder.snapshots()}
    luns, bases = chosen(params, before.get(run_id, []))
    after = wanted(folder, before, params, luns, bases)
    marks = params["kept"] and not folder.is_kept(run_id)
    try:
        ended = end_exports(Exports(params["run_dir"]), run_id, [*luns, *bases], module.check_mode)
        if not module.check_mode:
            apply(folder, before, after, params)
    except (ExportError, SnapshotError, OSError) as error:
        module.fail_json(msg=f"The snapshots of run {run_id} were not updated: {error}")
    module.exit_json(
        changed=bool(marks or ended or before != after),
        luns=after.get(run_id, []),
        ended=ended,
        diff={"before": {"luns": before}, "after": {"luns": after}},
    )


if __name__ == "__main__":
    main()
