#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_map
short_description: Map LUNs of a snapshot to the backup server, and report what has changed on them
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Exports LUNs of the snapshot that a run made with the storage driver C(btrfs) or C(file) over NBD, read-only, each
    with a key of its own. M(openisb.backup.lun_snapshot) ends these exports.
  - Before, compares where the filesystem has put each LUN with where it has put the same LUN in an earlier run's
    snapshot, the base. Reads no data. Anything uncertain counts as changed. If changes cannot be determined (no base,
    another size, another filesystem, blocks that are being moved), the module returns a reason and no changes.
  - Gives each LUN of the snapshot a unique identity, by which a saveset records what it was made from.
  - A LUN that cannot be mapped does not keep the others from it. Its C(problem) says why, and the module succeeds.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.export
  - openisb.backup.snapshots
options:
  run_id:
    description: The run whose snapshot it is.
    type: str
    required: true
  luns:
    description: Serials of the LUNs.
    type: list
    elements: str
    required: true
  changes:
    description: Whether to compare the LUNs with their bases. Otherwise they get no identity either.
    type: bool
    default: true
  bases:
    description: For each LUN, by serial, the run whose snapshot is its base; empty or omitted if it has none.
    type: dict
    default: {}
  renew:
    description:
      - Whether to end the exports of these LUNs that are running, and start them again with new keys. For another
        backup server, when the first one does not answer any more and must not read on.
    type: bool
    default: false
  address:
    description: Name or address of this host on which to listen.
    type: str
    required: true
requirements:
  - nbdkit
seealso:
  - module: openisb.backup.lun_snapshot
  - module: openisb.backup.block_backup
"""

EXAMPLES = r"""
- name: Map the LUNs of a server
  openisb.backup.lun_map:
    driver: btrfs
    directory: /srv/pool/snapshots
    run_id: isb-20261123T021500Z-4f1c2a
    luns: [600a098000000011]
    bases:
      600a098000000011: isb-20261122T021500Z-90be12
    address: storage1
  register: mapped
  no_log: true
"""

RETURN = r"""
luns:
  description:
    - For each LUN, by serial, its C(export) as recorded, with its uri and port, and C(problem), which is empty, or says
      why there is none.
    - Also its C(id), empty if it can have none; C(since), the id of its base, empty if changes cannot be determined;
      C(reason), which then says why; C(size) in bytes; C(count), the number of changed extents; and C(bytes), their
      total size.
    - Also the C(extents) themselves, as M(openisb.backup.block_backup) takes them, which are pairs of gap and length in
      bytes, as unsigned 64-bit numbers, deflated and base64-encoded.
  returned: success
  type: dict
psks:
  description: By serial, the export's key, as hex digits, for the user C(openisb); empty without TLS.
  returned: success
  type: dict
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_addresses import NAME
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import ExportError, Exports
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import NoChanges, changes_between, pack
from ansible_collections.openisb.backup.plugins.module_utils.storage.snapshots import (
    SnapshotError,
    SnapshotFolder,
    export_name,
)

NOTHING = {"id": "", "since": "", "reason": "", "size": 0, "count": 0, "bytes": 0, "extents": ""}
ARGUMENTS = {
    "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
    "directory": {"type": "path", "required": True},
    "run_id": {"type": "str", "required": True},
    "luns": {"type": "list", "elements": "str", "required": True},
    "changes": {"type": "bool", "default": True},
    "bases": {"type": "dict", "default": {}},
    "renew": {"type": "bool", "default": False},
    "address": {"type": "str", "required": True},
    "tls": {"type": "bool", "default": True},
    "run_dir": {"type": "path", "default": "/run/openisb"},
}


def changes_of(folder, run_id, serial, base_run, create):
    """What has changed on one LUN. ``base_run``: None or empty if it has none; ``create``: whether it may get an id."""
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


class Mapping:
    """Maps the LUNs that the module was given."""

    def __init__(self, module):
        self.params = module.params
        self.check_mode = module.check_mode
        self.folder = SnapshotFolder(self.params["driver"], self.params["directory"])
        self.exports = Exports(self.params["run_dir"])
        self.changed = False

    def changes(self, serial):
        """What has changed on a LUN, if that is asked."""
        if not self.params["changes"]:
            return dict(NOTHING)
        run_id, base = self.params["run_id"], self.params["bases"].get(serial)
        before = changes_of(self.folder, run_id, serial, "", False)["id"]
        told = changes_of(self.folder, run_id, serial, base, not self.check_mode)
        self.changed = self.changed or not before
        return told

    def map(self, serial):
        """The export of a LUN, and the problem that keeps it from being exported."""
        name = export_name(self.params["run_id"], serial)
        try:
            return {"export": self._export(name, serial), "problem": ""}
        except (ExportError, OSError) as error:
            return {"export": {}, "problem": str(error)}

    def _export(self, name, serial):
        """The record of the LUN's export, which is started unless it is there; empty in check mode."""
        run_id, path = self.params["run_id"], self.folder.lun_path(self.params["run_id"], serial)
        if not NAME.fullmatch(name):
            raise ExportError(f"serial '{serial}' cannot name an export: use letters, digits, '.', '_' and '-'")
        there = self.exports.get(name)
        if there and there["running"]:
            if (there["path"], there["readonly"]) != (path, True):
                raise ExportError(f"export {name} already serves {there['path']}: end it first")
            if not self.params["renew"]:
                return there
            if not self.check_mode:
                self.exports.stop(name)
        self.changed = True
        address, tls = self.params["address"], self.params["tls"]
        return {} if self.check_mode else self.exports.start(name, path, address, tls, True, run_id)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    mapping = Mapping(module)
    # Where blocks are is compared before anyone reads them.
    changes = {serial: mapping.changes(serial) for serial in module.params["luns"]}
    exports = {serial: mapping.map(serial) for serial in module.params["luns"]}
    luns = {serial: dict(changes[serial], **exports[serial]) for serial in changes}
    names = {serial: found["export"].get("name") for serial, found in exports.items()}
    module.exit_json(
        changed=mapping.changed,
        luns=luns,
        psks={serial: mapping.exports.key(name) or "" for serial, name in names.items() if name},
        diff={
            "before": {},
            "after": {serial: {"id": lun["id"], "export": names[serial]} for serial, lun in luns.items()},
        },
    )


if __name__ == "__main__":
    main()
