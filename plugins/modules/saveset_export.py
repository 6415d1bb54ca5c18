#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_export
short_description: Serve a saveset over NBD, without restoring it first
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Serves a volume, as it was at a consistency point, with C(nbdkit) on a free port, encrypted, to anyone who has the
    export's own key. Nothing is restored first. Data is taken from the repository as it is read, and verified before it
    is served.
  - The export is read-only. To write, put a layer over it that takes the writes, such as nbdkit's C(cow).
  - The export outlives the module, is recorded below O(run_dir) like those of M(openisb.backup.nbd_export), and carries
    the id of the drill, so that exports left by a dead drill can be found and ended. M(openisb.backup.nbd_export_info)
    lists it.
  - As long as it serves, nothing that the saveset uses is pruned.
  - The repository's secret is in no file, on no command line and in no environment of the processes that are left
    running.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.export
  - openisb.backup.export.state
  - openisb.backup.repository
requirements:
  - nbdkit with its python plugin, for the same Python as the one that runs the module
options:
  volume:
    description: The volume, as C(server/name). Required with O(state=present).
    type: str
  run_id:
    description:
      - The run whose saveset is served. If this and O(saveset) are omitted, the latest saveset of the volume is served.
    type: str
  saveset:
    description: The saveset's id. Its first digits are enough.
    type: str
  name:
    description:
      - Name of the export, unique on the host.
      - Required with O(state=present). With O(state=absent) and without it, all exports of O(drill) are ended.
    type: str
  drill:
    description:
      - The drill that the export belongs to, recorded as the export's C(run_id). Required with O(state=present).
    type: str
  readahead:
    description: Whether to read ahead on sequential reads.
    type: bool
    default: true
  cache:
    description:
      - How much of the data read may be kept in memory, such as V(4G), in addition to the 64 MiB that are always kept.
        It is gone when the export ends, however it ends. No data of a volume is written to a disk.
      - At most half of the memory that is free and not promised to other exports is used. If that is not enough, less
        is kept, and a warning says so. The amount is in the record.
    type: str
    default: ''
  expires:
    description: When the export may be swept, in seconds since 1970; V(0) for never. It is only recorded.
    type: int
    default: 0
seealso:
  - module: openisb.backup.nbd_export_info
  - module: openisb.backup.block_restore
"""

EXAMPLES = r"""
- name: Serve the latest saveset of a volume to the DR host
  openisb.backup.saveset_export:
    repository: /var/lib/openisb/repository
    volume: fs1/m
    name: idr-20261128T210000Z-4f1c2a.fs1.m
    drill: idr-20261128T210000Z-4f1c2a
    address: backup1
  vars:
    ansible_python_interpreter: "{{ openisb_host.python }}"
  register: export
  no_log: true

- name: End it
  openisb.backup.saveset_export:
    name: idr-20261128T210000Z-4f1c2a.fs1.m
    state: absent
  vars:
    ansible_python_interpreter: "{{ openisb_host.python }}"
"""

RETURN = r"""
export:
  description:
    - The export as recorded, with name, uri, port, run_id (the drill), path (the repository), readonly, expires, cache
      (bytes that it may keep in memory), pid, ticks and running, and in C(saveset) what it serves, with id, volume,
      run_id, time, verdict, size (bytes) and digest.
    - Empty if it is absent.
  returned: success
  type: dict
psk:
  description: The export's key, as hex digits, for the user C(openisb); empty without TLS. Register it with C(no_log).
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.exports import SavesetExports
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
    warn_of_swap,
)
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_addresses import NAME
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import ExportError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import SavesetError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.memory import parse_size

ARGUMENTS = dict(
    REPOSITORY_ARGUMENTS,
    volume={"type": "str"},
    run_id={"type": "str"},
    saveset={"type": "str"},
    name={"type": "str"},
    drill={"type": "str"},
    address={"type": "str"},
    tls={"type": "bool", "default": True},
    readahead={"type": "bool", "default": True},
    cache={"type": "str", "default": ""},
    expires={"type": "int", "default": 0},
    run_dir={"type": "path", "default": "/run/openisb"},
    state={"type": "str", "choices": ["present", "absent"], "default": "present"},
)

#: What the record keeps of the saveset's facts.
SAVESET = ("id", "volume", "run_id", "time", "verdict", "size", "digest")


def serves(current, params):
    """Whether an export serves what was requested. If that is the latest saveset, one that was the latest is fine."""
    saveset = current.get("saveset") or {}
    return (
        saveset.get("volume") == params["volume"]
        and saveset["id"].startswith(params["saveset"] or "")
        and params["run_id"] in (None, saveset["run_id"])
    )


def warn_of_memory(module, asked, granted):
    """Warn if less is kept than was requested, or if memory might get to a disk unencrypted."""
    if granted < asked:
        module.warn(
            f"There is memory for only {granted >> 20} of the {asked >> 20} MiB of cache, so data is read from the "
            "repository more often: give this host more memory, or bring fewer volumes into use at once"
        )
    warn_of_swap(module)


def ensure_present(module, exports, current):
    params = module.params
    if current and current["running"]:
        if not serves(current, params):
            raise ExportError("it already serves something else: end it first, or choose another name")
        if current["expires"] == params["expires"]:
            return False, current
        if module.check_mode:
            return True, dict(current, expires=params["expires"])
        return True, exports.change(params["name"], expires=params["expires"])
    require_libraries(module)
    cache = parse_size(params["cache"]) if params["cache"] else 0
    repository = open_repository(module)
    repository.require_reading()
    info = repository.find(params["volume"], saveset_id=params["saveset"], run_id=params["run_id"]).info
    found = saveset_facts(info)
    facts = {
        "name": params["name"],
        "run_id": params["drill"],
        "expires": params["expires"],
        "saveset": {key: found[key] for key in SAVESET},
    }
    if module.check_mode:
        return True, dict(facts, path=repository.location, readonly=True)
    listen = params["address"], params["tls"]
    export = exports.serve(repository, info, facts, *listen, cache, params["readahead"])
    warn_of_memory(module, cache, export["cache"])
    return True, export


def ensure_absent(module, exports, current):
    if current and not module.check_mode:
        exports.end(module.params["name"])
    return current is not None, {}


def end_all(module, exports):
    """End every export of a drill, also those of files and devices, and leave the module."""
    there = [export for export in exports.list() if export["run_id"] == module.params["drill"]]
    for export in there if not module.check_mode else []:
        try:
            exports.end(export["name"])
        except (ExportError, SavesetError, OSError) as error:
            module.fail_json(msg="Export {}: {}".format(export["name"], error))
    module.exit_json(changed=bool(there), export={}, psk="", diff={"before": {"exports": there}, "after": {}})


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("name", "volume", "drill", "address"))],
        required_one_of=[("name", "drill")],
        supports_check_mode=True,
    )
    name = module.params["name"]
    exports = SavesetExports(module.params["run_dir"])
    if name is None:
        end_all(module, exports)
    if not NAME.fullmatch(name):
        module.fail_json(msg=f"'{name}' cannot name an export: use letters, digits, '.', '_' and '-'")
    ensure = ensure_present if module.params["state"] == "present" else ensure_absent
    try:
        current = exports.get(name)
        changed, export = ensure(module, exports, current)
    except (ExportError, SavesetError, OSError) as error:
        module.fail_json(msg=f"Export {name}: {error}")
    module.exit_json(
        changed=changed, export=export, psk=exports.key(name) or "", diff={"before": current or {}, "after": export}
    )


if __name__ == "__main__":
    main()
