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
  - Serves a file or block device with C(nbdkit) on a free port, encrypted, to anyone who has the export's own key.
  - The export outlives the module, is recorded below O(run_dir), and carries the run id, so that exports left by a dead
    run can be found and ended.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.export
  - openisb.backup.export.state
requirements:
  - nbdkit
options:
  name:
    description:
      - Name of the export, unique on the host.
      - Required with O(state=present). With O(state=absent) and without it, all exports of O(run_id) are ended.
    type: str
  run_id:
    description: The run, or the drill, that the export belongs to.
    type: str
    required: true
  path:
    description: The file or block device. Required with O(state=present), unless O(sample) is set.
    type: path
  sample:
    description:
      - Whether to serve 64 KiB that M(openisb.backup.nbd_sample) knows, instead of O(path), to test the connection.
      - It ends automatically after two minutes if nobody ends it.
    type: bool
    default: false
  readonly:
    description: Whether clients may only read.
    type: bool
    default: true
  target:
    description:
      - What a restore will write to the export. Set it if O(path) is the target of a restore.
      - The path is then refused for the same reasons as by M(openisb.backup.restore_target), and held by C(nbdkit) as
        long as it serves. Meanwhile nothing can mount it, and no other restore can write to it. It is recorded as being
        written. A file is created, or resized to the size of the volume.
    type: dict
    suboptions:
      volume:
        description: The volume, as C(server/name).
        type: str
        required: true
      purpose:
        description:
          - What the target is for. V(standby) follows the volume; V(restored) stays as it is; with V(once), nothing is
            recorded.
        type: str
        choices: [standby, restored, once]
        required: true
      size:
        description: Size of the volume in bytes.
        type: int
        required: true
      keep:
        description: Whether to keep the content of a file that may be overwritten. Otherwise it is emptied.
        type: bool
        default: false
      overwrite:
        description: Identities of targets that may be overwritten, as those of M(openisb.backup.restore_target).
        type: list
        elements: str
        default: []
      state_dir:
        description: Folder for state that must survive a restart of the host.
        type: path
        default: /var/lib/openisb
      block_size:
        description: As that of M(openisb.backup.restore_target).
        type: int
        default: 0
seealso:
  - module: openisb.backup.nbd_export_info
  - module: openisb.backup.nbd_sample
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
  description: The export as recorded, with its uri and port; empty if it is absent.
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
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_addresses import NAME
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import ExportError, Exports
from ansible_collections.openisb.backup.plugins.module_utils.luns import targets
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import TargetError

TARGET = {
    "volume": {"type": "str", "required": True},
    "purpose": {"type": "str", "choices": list(targets.PURPOSES), "required": True},
    "size": {"type": "int", "required": True},
    "keep": {"type": "bool", "default": False},
    **targets.ARGUMENTS,
    **targets.BLOCK_SIZE,
}


def ensure_present(module, exports, current):
    params = module.params
    if current and current["running"]:
        if params["sample"] and current.get("sample"):
            return False, current
        if (current["path"], current["readonly"]) != (params["path"], params["readonly"]):
            module.fail_json(
                msg="Export {} already serves {}: end it first, or choose another name".format(
                    params["name"], current["path"]
                )
            )
        return False, current
    if module.check_mode:
        return True, {"name": params["name"], "path": params["path"], "readonly": params["readonly"]}
    if params["sample"]:
        return True, exports.start_sample(*(params[key] for key in ("name", "address", "tls", "run_id")))
    wanted = {key: params[key] for key in ("name", "path", "address", "tls", "readonly", "run_id")}
    if not params["target"]:
        return True, exports.start(**wanted)
    return True, start_target(exports, wanted, params["target"], params["run_dir"])


def start_target(exports, wanted, target, run_dir):
    """Export the target of a restore, held from before it is inspected until the export ends."""
    options = {key: target[key] for key in ("volume", "size", "overwrite", "state_dir", "block_size")}
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
            "sample": {"type": "bool", "default": False},
            "address": {"type": "str"},
            "tls": {"type": "bool", "default": True},
            "readonly": {"type": "bool", "default": True},
            "target": {"type": "dict", "options": TARGET},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("name", "address"))],
        supports_check_mode=True,
    )
    name = module.params["name"]
    exports = Exports(module.params["run_dir"])
    if name is None:
        end_all(module, exports)
    if not NAME.fullmatch(name):
        module.fail_json(msg=f"'{name}' cannot name an export: use letters, digits, '.', '_' and '-'")
    if module.params["state"] == "present" and bool(module.params["path"]) == module.params["sample"]:
        module.fail_json(msg=f"Export {name}: give either a path or 'sample: true'")
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
