#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: idr_mount
short_description: Mount filesystems from LUNs of a drill
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Mounts devices that M(openisb.backup.idr_lun) has made. A mount is in no fstab, so it does not survive a restart.
  - It is unmounted with the LUN, by M(openisb.backup.idr_lun) with O(openisb.backup.idr_lun#module:state=absent).
  - Other mounts of the host do not matter, whatever bytes their names contain.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  mounts:
    description:
      - What to mount. A filesystem that is mounted below another of them comes after it; others are mounted at the same
        time.
      - One that cannot be mounted does not keep the others from it, except those below it. RV(mounts) says why, and the
        module succeeds.
    type: list
    elements: dict
    required: true
    suboptions:
      device:
        description: The device, such as that of one of a LUN's parts.
        type: path
        required: true
      path:
        description: Where to mount it. A missing folder is created. Nothing else may be mounted there.
        type: path
        required: true
      fstype:
        description: The type of the filesystem, as the filter P(openisb.backup.idr_mount_type#filter) returns it.
        type: str
        required: true
      opts:
        description: The mount options, as the filter P(openisb.backup.idr_mount_options#filter) returns them.
        type: str
        required: true
  timeout:
    description:
      - Seconds that mounting one may take. A filesystem that was not unmounted cleanly replays its journal first.
    type: float
    default: 600
seealso:
  - module: openisb.backup.idr_lun
"""

EXAMPLES = r"""
- name: Mount what is on a LUN
  openisb.backup.idr_mount:
    mounts:
      - device: "{{ lun.parts[0].device }}"
        path: /srv/dr/fs1/m
        fstype: "{{ lun.parts[0].type | openisb.backup.idr_mount_type }}"
        opts: "{{ lun.parts[0].type | openisb.backup.idr_mount_options(lun.writable) }}"
  vars:
    lun: "{{ made.luns['idr-20261128T210000Z-4f1c2a.fs1.m'].lun }}"
"""

RETURN = r"""
mounts:
  description: For each, by its path, C(problem), which is empty, or says why it was not mounted.
  returned: success
  type: dict
  sample:
    /srv/dr/fs1/m:
      problem: ""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.at_once import at_once
from ansible_collections.openisb.backup.plugins.module_utils.luns import mounts as luns_mounts
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError

ARGUMENTS = {
    "mounts": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "device": {"type": "path", "required": True},
            "path": {"type": "path", "required": True},
            "fstype": {"type": "str", "required": True},
            "opts": {"type": "str", "required": True},
        },
    },
    "timeout": {"type": "float", "default": 600},
}


class Mounting:
    """Mounts what the module was given. ``mounted``: by path, what was mounted there before; ``problems``: by path."""

    def __init__(self, module):
        self.wanted = {each["path"]: each for each in module.params["mounts"]}
        self.timeout = module.params["timeout"]
        self.check_mode = module.check_mode
        self.mounted = {}
        self.problems = {}

    def run(self):
        for paths in luns_mounts.generations({path: path for path in self.wanted}):
            self.problems.update(zip(paths, at_once(self._attempt, paths)))

    def _attempt(self, path):
        """Mount one, and return why that failed, or an empty text."""
        lacking = [each for each in luns_mounts.parents(path, self.wanted) if self.problems[each]]
        if lacking:
            return f"{lacking[0]}, which it is below, was not mounted"
        try:
            self._mount(path)
        except (LunError, OSError) as error:
            return str(error)
        return ""

    def _mount(self, path):
        wanted = self.wanted[path]
        there = luns_mounts.is_there(wanted["device"], path)
        self.mounted[path] = wanted["device"] if there else ""
        if not there and not self.check_mode:
            luns_mounts.mount(wanted["device"], path, wanted["fstype"], wanted["opts"], self.timeout)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    mounting = Mounting(module)
    mounting.run()
    good = [path for path, problem in mounting.problems.items() if not problem]
    module.exit_json(
        changed=any(not mounting.mounted[path] for path in good),
        mounts={path: {"problem": problem} for path, problem in mounting.problems.items()},
        diff={
            "before": {path: mounting.mounted[path] for path in good},
            "after": {path: mounting.wanted[path]["device"] for path in good},
        },
    )


if __name__ == "__main__":
    main()
