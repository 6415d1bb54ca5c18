#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nbd_export
short_description: Export a file or device over NBD
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Serves a file or block device with C(nbdkit) at a free port, encrypted, to whoever has the export's own key.
  - The export outlives the module, is recorded below O(run_dir), and carries the run id, so that what a dead run left
    can be found and ended.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.export
requirements:
  - nbdkit
options:
  name:
    description:
      - Name of the export, unique on the host.
      - Needed with O(state=present). With O(state=absent) and without it, all exports of O(run_id) are ended.
    type: str
  run_id:
    description: The run, or the drill, that the export belongs to.
    type: str
    required: true
  path:
    description: The file or block device. Needed with O(state=present).
    type: path
  readonly:
    description: Whether clients may only read.
    type: bool
    default: true
  target:
    description:
      - What a restore is to write to the export. Set it where O(path) is the target of one.
      - The path is refused then as M(openisb.backup.restore_target) says, and held by C(nbdkit) for as long as it
        serves. Nothing can mount it meanwhile, and no other restore write to it. That it is being written is put on
        record. A file is made, or made as long as the volume.
    type: dict
    suboptions:
      volume:
        description: The volume, as C(server/name).
        type: str
        required: true
      purpose:
        description:
          - What the target is for; V(standby), it follows the volume; V(restored), it stays as it is; V(once), nothing
            is put on record of it.
        type: str
        choices: [standby, restored, once]
        required: true
      size:
        description: Size of the volume in bytes.
        type: int
        required: true
      keep:
        description: Whether to keep what a file holds that may be written over. Else it is emptied.
        type: bool
        default: false
      overwrite:
        description: Identities of targets that may be written over, as those of M(openisb.backup.restore_target).
        type: list
        elements: str
        default: []
      state_dir:
        description: Folder for what has to outlive the host's restart.
        type: path
        default: /var/lib/openisb
seealso:
  - module: openisb.backup.nbd_export_info
  - module: openisb.backup.saveset_export
"""

EXAMPLES = r"""
- name: Export a LUN of the snapshot to the backup server
  openisb.backup.nbd_export:
    name: isb-20261123T021500Z-4f1c2a.600a098000000011
    run_id: isb-20261123T021500Z-4f1c2a
    path: /srv/pool/snapshots/isb-20261123T021500Z-4f1c2a/600a098000000011.lun
    address: storage1
  register: export
  no_log: true
"""

RETURN = r"""
export:
  description: The export as recorded, with its uri and port; empty where it is absent.
  returned: success
  type: dict
ended:
  description: Names of the exports that were ended; in check mode, of those that would be.
  returned: when O(state=absent) and without O(name)
  type: list
  elements: str
held:
  description: With O(target), what the target was known to hold before, as M(openisb.backup.standby) returns it.
  returned: when O(target) is set and the export was started
  type: dict
psk:
  description: The export's key, as hex digits, for the user C(openisb); empty without TLS. Register it with C(no_log).
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils import targets
from ansible_collections.openisb.backup.plugins.module_utils.nbd_addresses import NAME
from ansible_collections.openisb.backup.plugins.module_utils.nbd_exports import ExportError, Exports
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import TargetError

TARGET = {
    "volume": {"type": "str", "required": True},
    "purpose": {"type": "str", "choices": list(targets.PURPOSES), "required": True},
    "size": {"type": "int", "required": True},
    "keep": {"type": "bool", "default": False},
    **targets.ARGUMENTS,
}


def ensure_present(module, exports, current):
    params = module.params
    if current and current["running"]:
        if (current["path"], current["readonly"]) != (params["path"], params["readonly"]):
            module.fail_json(
                msg="Export {} serves {} already: end it first, or choose another name".format(
                    params["name"], current["path"]
                )
            )
        return False, current
    if module.check_mode:
        return True, {"name": params["name"], "path": params["path"], "readonly": params["readonly"]}
    wanted = {key: params[key] for key in ("name", "path", "address", "tls", "readonly", "run_id")}
    if not params["target"]:
        return True, exports.start(**wanted)
    return True, start_target(exports, wanted, params["target"], params["run_dir"])


def start_target(exports, wanted, target, run_dir):
    """Export what a restore is to write to, held from before it is looked at until the export ends."""
    options = {key: target[key] for key in ("volume", "size", "overwrite", "state_dir")}
    taken = targets.Target(wanted["path"], run_dir=run_dir, **options)
    with taken.take() as held:
        before = taken.begin(held, target["purpose"], target["keep"])
        return dict(exports.start(**wanted, held=held), held=before)


def ensure_absent(module, exports, current):
    if current and not module.check_mode:
        exports.stop(module.params["name"])
    return current is not None, {}


def end_all(module, exports):
    """End every export of a run or drill, and leave the module."""
    there = [export for export in exports.list() if export["run_id"] == module.params["run_id"]]
    for export in there if not module.check_mode else []:
        try:
            exports.stop(export["name"])
        except (ExportError, OSError) as error:
            module.fail_json(msg="Export {}: {}".format(export["name"], error))
    diff = {"before": {"exports": there}, "after": {}}
    module.exit_json(changed=bool(there), export={}, psk="", ended=[export["name"] for export in there], diff=diff)


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "run_id": {"type": "str", "required": True},
            "path": {"type": "path"},
            "address": {"type": "str"},
            "tls": {"type": "bool", "default": True},
            "readonly": {"type": "bool", "default": True},
            "target": {"type": "dict", "options": TARGET},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("name", "path", "address"))],
        supports_check_mode=True,
    )
    name = module.params["name"]
    exports = Exports(module.params["run_dir"])
    if name is None:
        end_all(module, exports)
    if not NAME.fullmatch(name):
        module.fail_json(msg=f"'{name}' cannot name an export: use letters, digits, '.', '_' and '-'")
    current = exports.get(name)
    ensure = ensure_present if module.params["state"] == "present" else ensure_absent
    try:
        changed, export = ensure(module, exports, current)
    except (ExportError, TargetError, OSError) as error:
        module.fail_json(msg=f"Export {name}: {error}")
    held = {"held": export.pop("held")} if "held" in export else {}
    module.exit_json(
        changed=changed,
        export=export,
        psk=exports.key(name) or "",
        diff={"before": current or {}, "after": export},
        **held,
    )


if __name__ == "__main__":
    main()
