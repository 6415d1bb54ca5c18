#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_clone
short_description: Clone LUNs from a snapshot for a drill, and export the clones
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Makes writable clones of LUNs from a run's snapshot on a storage host with the storage driver C(btrfs) or C(file),
    so that a drill never writes to the snapshot itself.
  - On btrfs a clone shares its blocks with the snapshot and is created instantly.
  - Exports the clones over NBD, each with a key of its own, so that a DR host can read and write them.
    M(openisb.backup.nbd_export) ends these exports, by the id of the drill.
  - A LUN that cannot be cloned or exported does not keep the others from it. Its C(problem) says why, and the module
    succeeds.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.export
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
    description:
      - With V(present), these LUNs are cloned, and the clones exported; with V(absent), the drill has no clones.
    type: str
    choices: [present, absent]
    default: present
requirements:
  - nbdkit
seealso:
  - module: openisb.backup.lun_snapshot
  - module: openisb.backup.nbd_export
"""

EXAMPLES = r"""
- name: Clone a LUN
  openisb.backup.lun_clone:
    driver: btrfs
    directory: /srv/pool/snapshots
    drill: idr-20261128T210000Z-4f1c2a
    run_id: isb-20261123T021500Z-4f1c2a
    luns: [600a098000000011]
    address: storage1
  register: cloned
  no_log: true
"""

RETURN = r"""
luns:
  description:
    - For each LUN, by serial, its C(export) as recorded, with its uri, port and path, and C(problem), which is empty,
      or says why there is none. In check mode, nothing is exported.
    - Empty with O(state=absent).
  returned: success
  type: dict
psks:
  description: By serial, the export's key, as hex digits, for the user C(openisb); none without TLS.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_addresses import NAME
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import ExportError, Exports
from ansible_collections.openisb.backup.plugins.module_utils.storage.clones import CloneError, Clones

ARGUMENTS = {
    "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
    "directory": {"type": "path", "required": True},
    "drill": {"type": "str", "required": True},
    "run_id": {"type": "str"},
    "luns": {"type": "list", "elements": "str"},
    "address": {"type": "str"},
    "tls": {"type": "bool", "default": True},
    "run_dir": {"type": "path", "default": "/run/openisb"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


class Cloning:
    """Clones the LUNs that the module was given, and exports the clones."""

    def __init__(self, module, clones):
        self.params = module.params
        self.check_mode = module.check_mode
        self.clones = clones
        self.exports = Exports(self.params["run_dir"])
        self.changed = False

    def attempt(self, serial):
        """The export of a clone, and the problem that keeps it from being there."""
        try:
            return {"export": self._ensure(serial), "problem": ""}
        except (CloneError, ExportError, OSError) as error:
            return {"export": {}, "problem": str(error)}

    def _ensure(self, serial):
        name = self.name(serial)
        if not NAME.fullmatch(name):
            raise ExportError(f"serial '{serial}' cannot name an export: use letters, digits, '.', '_' and '-'")
        there = self.exports.get(name)
        if there and there["running"]:
            return there
        self.changed = True
        if self.check_mode:
            return {}
        self.clones.make(self.params["run_id"], [serial])
        path = self.clones.list()[serial]["path"]
        return self.exports.start(name, path, self.params["address"], self.params["tls"], False, self.params["drill"])

    def name(self, serial):
        """Name of a clone's export."""
        return f"{self.params['drill']}.{serial}"

    def keys(self, luns):
        """By serial, the keys of the exports that are there."""
        keys = {serial: self.exports.key(self.name(serial)) for serial, lun in luns.items() if lun["export"]}
        return {serial: key for serial, key in keys.items() if key}


def ensure_present(module, clones):
    """Clone and export. One after the other: where a clone is a copy, the storage must not be read by several."""
    cloning, before = Cloning(module, clones), sorted(clones.list())
    luns = {serial: cloning.attempt(serial) for serial in module.params["luns"]}
    after = sorted(clones.list())
    return {"changed": cloning.changed, "luns": luns, "psks": cloning.keys(luns), "diff": diff(before, after)}


def ensure_absent(module, clones):
    """Delete all clones of the drill."""
    before = sorted(clones.list())
    if not module.check_mode:
        clones.delete()
    return {"changed": bool(before), "luns": {}, "psks": {}, "diff": diff(before, [])}


def diff(before, after):
    """What changes, as the serials of the clones."""
    return {"before": {"luns": before}, "after": {"luns": after}}


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("run_id", "luns", "address"))],
        supports_check_mode=True,
    )
    params = module.params
    ensure = ensure_present if params["state"] == "present" else ensure_absent
    try:
        result = ensure(module, Clones(params["driver"], params["directory"], params["drill"]))
    except (CloneError, OSError) as error:
        module.fail_json(msg="Clones of drill {}: {}".format(params["drill"], error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
