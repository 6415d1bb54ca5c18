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
  description: The export as recorded, with its uri; empty where it is absent.
  returned: success
  type: dict
ended:
  description: Names of the exports that were ended; in check mode, of those that would be.
  returned: when O(state=absent) and without O(name)
  type: list
  elements: str
psk:
  description: The export's key, as hex digits, for the user C(openisb); empty without TLS. Register it with C(no_log).
  returned: success
  type: str
"""

import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.nbd_exports import ExportError, Exports

NAME = re.compile(r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")


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
    return True, exports.start(**wanted)


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
    if not NAME.match(name):
        module.fail_json(msg=f"'{name}' cannot name an export: use letters, digits, '.', '_' and '-'")
    current = exports.get(name)
    ensure = ensure_present if module.params["state"] == "present" else ensure_absent
    try:
        changed, export = ensure(module, exports, current)
    except (ExportError, OSError) as error:
        module.fail_json(msg=f"Export {name}: {error}")
    module.exit_json(
        changed=changed, export=export, psk=exports.key(name) or "", diff={"before": current or {}, "after": export}
    )


if __name__ == "__main__":
    main()
