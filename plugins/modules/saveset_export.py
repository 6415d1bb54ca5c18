#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_export
short_description: Serve savesets over NBD, without restoring them first
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Serves volumes, each as it was at a consistency point, with C(nbdkit) on a free port, encrypted, to anyone who has
    the export's own key. Nothing is restored first. Data is taken from the repository as it is read, and verified
    before it is served.
  - One that cannot be served does not keep the others from it. Its C(problem) says why, and the module succeeds.
  - An export is read-only. To write, put a layer over it that takes the writes, such as nbdkit's C(cow).
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
  savesets:
    description: What to serve. Required with O(state=present).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the export, unique on the host.
        type: str
        required: true
      volume:
        description: The volume, as C(server/name).
        type: str
        required: true
      run_id:
        description:
          - The run whose saveset is served. If this and the saveset's id are omitted, the latest saveset of the volume
            is served.
        type: str
      saveset:
        description: The saveset's id. Its first digits are enough.
        type: str
  name:
    description: With O(state=absent), the export to end. Without it, all exports of O(drill) are ended.
    type: str
  drill:
    description:
      - The drill that the exports belong to, recorded as C(run_id) of each. Required with O(state=present).
    type: str
  readahead:
    description: Whether to read ahead on sequential reads.
    type: bool
    default: true
  cache:
    description:
      - How much of the data read from each may be kept in memory, such as V(4G), in addition to the 64 MiB that are
        always kept. It is gone when the export ends, however it ends. No data of a volume is written to a disk.
      - At most half of the memory that is free and not promised to other exports is used. If that is not enough, less
        is kept, and a warning says so. The amount is in the record.
    type: str
    default: ''
  expires:
    description: When the exports may be swept, in seconds since 1970; V(0) for never. It is only recorded.
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
    savesets:
      - {name: idr-20261128T210000Z-4f1c2a.fs1.m, volume: fs1/m}
    drill: idr-20261128T210000Z-4f1c2a
    address: backup1
  vars:
    ansible_python_interpreter: "{{ openisb_host.python }}"
  register: served
  no_log: true

- name: End it
  openisb.backup.saveset_export:
    name: idr-20261128T210000Z-4f1c2a.fs1.m
    state: absent
  vars:
    ansible_python_interpreter: "{{ openisb_host.python }}"
"""

RETURN = r"""
exports:
  description:
    - By name, what became of each; empty with O(state=absent).
    - C(problem) says why it is not served, and is empty if it is. C(export) is the export as recorded, with name, uri,
      port, run_id (the drill), path (the repository), readonly, expires, cache (bytes that it may keep in memory), pid,
      ticks and running, and in C(saveset) what it serves, with id, volume, run_id, time, verdict, size (bytes) and
      digest; empty if it is not served.
  returned: success
  type: dict
psks:
  description: By name, the export's key, as hex digits, for the user C(openisb); none without TLS.
  returned: success
  type: dict
"""

import threading

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.exports import SavesetExports
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
    warn_of_swap,
)
from ansible_collections.openisb.backup.plugins.module_utils.host.at_once import at_once
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_addresses import NAME
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import ExportError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import SavesetError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.memory import parse_size

ARGUMENTS = dict(
    REPOSITORY_ARGUMENTS,
    savesets={
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "volume": {"type": "str", "required": True},
            "run_id": {"type": "str"},
            "saveset": {"type": "str"},
        },
    },
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


def serves(current, wanted):
    """Whether an export serves what was requested. If that is the latest saveset, one that was the latest is fine."""
    saveset = current.get("saveset") or {}
    return (
        saveset.get("volume") == wanted["volume"]
        and saveset["id"].startswith(wanted["saveset"] or "")
        and wanted["run_id"] in (None, saveset["run_id"])
    )


def warn_of_memory(module, asked, granted):
    """Warn if less is kept than was requested, or if memory might get to a disk unencrypted."""
    if granted < asked:
        module.warn(
            f"There is memory for only {granted >> 20} of the {asked >> 20} MiB of cache, so data is read from the "
            "repository more often: give this host more memory, or bring fewer volumes into use at once"
        )
    warn_of_swap(module)


class Serving:
    """Serves what the module was given, from a repository that is opened once. ``before``: by name, exports there."""

    def __init__(self, module, exports):
        self.params = module.params
        self.check_mode = module.check_mode
        self.exports = exports
        self.before = {each["name"]: exports.get(each["name"]) for each in self.params["savesets"]}
        self.changed = False
        self.granted = []
        self._finding = threading.Lock()
        if not all(self._runs(name) for name in self.before):
            require_libraries(module)
            self.cache = parse_size(self.params["cache"]) if self.params["cache"] else 0
            self.repository = open_repository(module)
            self.repository.require_reading()

    def _runs(self, name):
        return bool(self.before[name] and self.before[name]["running"])

    def attempt(self, wanted):
        """One export, and the problem that keeps it from being served."""
        try:
            export = self._keep(wanted) if self._runs(wanted["name"]) else self._serve(wanted)
            return {"export": export, "problem": ""}
        except (ExportError, SavesetError, OSError) as error:
            return {"export": {}, "problem": str(error)}

    def _keep(self, wanted):
        """An export that is there already, with its time corrected."""
        current, expires = self.before[wanted["name"]], self.params["expires"]
        if not serves(current, wanted):
            raise ExportError("it already serves something else: end it first, or choose another name")
        if current["expires"] == expires:
            return current
        self.changed = True
        if self.check_mode:
            return dict(current, expires=expires)
        return self.exports.change(wanted["name"], expires=expires)

    def _serve(self, wanted):
        with self._finding:
            found = self.repository.find(wanted["volume"], saveset_id=wanted["saveset"], run_id=wanted["run_id"])
        told = saveset_facts(found.info)
        facts = {
            "name": wanted["name"],
            "run_id": self.params["drill"],
            "expires": self.params["expires"],
            "saveset": {key: told[key] for key in SAVESET},
        }
        self.changed = True
        if self.check_mode:
            return dict(facts, path=self.repository.location, readonly=True)
        listen = self.params["address"], self.params["tls"]
        export = self.exports.serve(self.repository, found.info, facts, *listen, self.cache, self.params["readahead"])
        self.granted.append(export["cache"])
        return export


def ensure_present(module, exports):
    """Serve the savesets, all at once, and leave the module."""
    serving = Serving(module, exports)
    told = dict(zip(serving.before, at_once(serving.attempt, module.params["savesets"])))
    if serving.granted:
        warn_of_memory(module, serving.cache, min(serving.granted))
    served = {name: each["export"] for name, each in told.items()}
    keys = {name: exports.key(name) for name, export in served.items() if export}
    module.exit_json(
        changed=serving.changed,
        exports=told,
        psks={name: key for name, key in keys.items() if key},
        diff={"before": {name: export for name, export in serving.before.items() if export}, "after": served},
    )


def ensure_absent(module, exports):
    """End one export, or every export of a drill, also those of files and devices, and leave the module."""
    name, drill = module.params["name"], module.params["drill"]
    there = [export for export in exports.list() if (export["name"] == name if name else export["run_id"] == drill)]
    for export in there if not module.check_mode else []:
        try:
            exports.end(export["name"])
        except (ExportError, SavesetError, OSError) as error:
            module.fail_json(msg="Export {}: {}".format(export["name"], error))
    module.exit_json(changed=bool(there), exports={}, psks={}, diff={"before": {"exports": there}, "after": {}})


def require_names(module):
    """Fail where a name cannot be that of an export, or two exports would have the same one."""
    names = [each["name"] for each in module.params["savesets"] or []]
    for name in names or filter(None, [module.params["name"]]):
        if not NAME.fullmatch(name):
            module.fail_json(msg=f"'{name}' cannot name an export: use letters, digits, '.', '_' and '-'")
        if names.count(name) > 1:
            module.fail_json(msg=f"Two exports would have the name {name}: give each its own")


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("savesets", "drill", "address"))],
        required_one_of=[("name", "drill")],
        supports_check_mode=True,
    )
    require_names(module)
    exports = SavesetExports(module.params["run_dir"])
    ensure = ensure_present if module.params["state"] == "present" else ensure_absent
    try:
        ensure(module, exports)
    except (ExportError, SavesetError, OSError) as error:
        module.fail_json(msg=f"The exports of {module.params['drill'] or module.params['name']}: {error}")


if __name__ == "__main__":
    main()
