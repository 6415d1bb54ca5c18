#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: idr_lun
short_description: Create or remove LUNs of a drill on a DR host
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Makes block devices from what a backup server or a storage host serves over NBD, or from files or devices of this
    host, and finds the filesystems on them, including those in partitions (GPT and MBR) and in volume groups.
  - All LUNs of a task are made at the same time. One that cannot be made does not keep the others from it. Its
    C(problem) says why, and the module succeeds.
  - If the source is gone, or its connection has been silent for O(timeout) seconds, reads fail with an error.
  - LUNs outlive the module. Each step is recorded below O(run_dir) before it is taken, so that what a killed module
    has left can be found and removed.
  - Nothing depends on udev. Each partition is a loop device of its own, and missing device nodes are created.
  - A volume group is imported under a name of OpenISB's own, which is written to the LUN or its overlay. The whole
    volume group must be on one LUN.
extends_documentation_fragment:
  - openisb.backup.attributes
requirements:
  - nbdkit, if a source is an export or has an overlay, and C(nbd-client) with the kernel module nbd, or C(nbdfuse) with
    the kernel modules fuse and loop
  - lvm2, if there are volume groups
options:
  luns:
    description: The LUNs to make. Required with O(state=present).
    type: list
    elements: dict
    suboptions:
      name:
        description: Name of the LUN, unique on the host, such as V(idr-20261128T210000Z-4f1c2a.fs1.m).
        type: str
        required: true
      source:
        description:
          - An export (V(nbd://HOST:PORT/NAME), or V(nbds://USER@HOST:PORT/NAME) for one with TLS), or the path of a
            file or block device of this host.
        type: str
        required: true
      overlay:
        description:
          - Whether writes go to a file below O(scratch), which is deleted with the LUN, and never to the source.
          - Otherwise writes go to the source.
        type: bool
        default: true
      sector_size:
        description:
          - Size in bytes of the logical sectors of the disk that the source is a copy of; V(0) if it is not known.
          - An MBR counts in sectors but does not record their size, so it is needed if they were not 512 bytes. A GPT
            records it.
          - A device with sectors of another size and a partition table is used through a loop device.
        type: int
        choices: [0, 512, 1024, 2048, 4096]
        default: 0
  psks:
    description:
      - For each LUN whose source is an export with TLS, by name, the key, as hex digits. It is kept only in nbdkit's
        memory.
    type: dict
  name:
    description: With O(state=absent), the LUN to remove.
    type: str
  drill:
    description:
      - The drill that the LUNs belong to.
      - Required with O(state=present). With O(state=absent) and without O(name), all LUNs of the drill are removed.
    type: str
  scratch:
    description:
      - Folder for overlays; created if it is missing. When its filesystem is full, writes to the LUNs fail.
    type: path
    default: /var/tmp
  method:
    description:
      - How to make a block device from what nbdkit serves, with the kernel's NBD client (V(nbd)) or with nbdfuse and a
        loop device (V(fuse)).
      - V(auto) takes the first if the kernel has it and C(nbd-client) is installed.
    type: str
    choices: [auto, nbd, fuse]
    default: auto
  timeout:
    description:
      - Seconds allowed for each step, and after which a silent source is given up.
    type: float
    default: 30
  expires:
    description: When the LUNs may be swept, in seconds since 1970; V(0) for never. It is only recorded.
    type: int
    default: 0
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
  state:
    description:
      - Whether the LUNs should exist.
      - With V(absent), everything mounted from them is unmounted, and the module fails if anything is left. A mount
        that is in use is never forced off.
    type: str
    choices: [present, absent]
    default: present
seealso:
  - module: openisb.backup.idr_lun_info
  - module: openisb.backup.idr_mount
"""

EXAMPLES = r"""
- name: Make a LUN from an export of the backup server
  openisb.backup.idr_lun:
    drill: idr-20261128T210000Z-4f1c2a
    luns:
      - name: idr-20261128T210000Z-4f1c2a.fs1.m
        source: nbds://openisb@backup1:45001/fs1-m
    psks:
      idr-20261128T210000Z-4f1c2a.fs1.m: "{{ psk }}"
    scratch: /var/lib/openisb/scratch
  register: made

- name: Mount what is on it
  openisb.backup.idr_mount:
    mounts:
      - device: "{{ lun.parts[0].device }}"
        path: /srv/dr/fs1/m
        fstype: "{{ lun.parts[0].type | openisb.backup.idr_mount_type }}"
        opts: "{{ lun.parts[0].type | openisb.backup.idr_mount_options(lun.writable) }}"
  vars:
    lun: "{{ made.luns['idr-20261128T210000Z-4f1c2a.fs1.m'].lun }}"

- name: Remove all LUNs of the drill
  openisb.backup.idr_lun:
    drill: idr-20261128T210000Z-4f1c2a
    state: absent
"""

RETURN = r"""
luns:
  description: By name, what became of each LUN; empty with O(state=absent).
  returned: success
  type: dict
  contains:
    problem:
      description: Why it could not be made; empty if it is there.
      type: str
      returned: always
    lun:
      description: The LUN; empty if it could not be made. In check mode, what is known before it is made.
      type: dict
      returned: always
      contains:
        name:
          description: Name of the LUN.
          type: str
          returned: always
        drill:
          description: The drill that it belongs to.
          type: str
          returned: always
        source:
          description: What it is made from, without secrets.
          type: str
          returned: always
        overlay:
          description: Whether writes stay on this host.
          type: bool
          returned: always
        expires:
          description: When it may be swept, in seconds since 1970; 0 for never.
          type: int
          returned: always
        method:
          description: How it is made; nbd, fuse, loop (a file without overlay) or device (a device without overlay).
          type: str
          returned: when it is made
        device:
          description: The block device of the whole LUN.
          type: str
          returned: when it is made
        writable:
          description: Whether it can be written to.
          type: bool
          returned: when it is made
        size:
          description: Its size in bytes.
          type: int
          returned: when it is made
        table:
          description: The kind of its partition table, gpt or dos; empty without one.
          type: str
          returned: when it is made
        parts:
          description:
            - Its partitions, without those that only contain others; the whole LUN as number 0 if it has no partition
              table; and, after a partition with a volume group, the logical volumes of that group, with the same
              number.
          type: list
          elements: dict
          returned: when it is made
          contains:
            number:
              description: Number of the partition; 0 for the whole LUN.
              type: int
              returned: always
            device:
              description: Its block device.
              type: str
              returned: always
            offset:
              description: Where it begins on the LUN, in bytes; 0 for a logical volume.
              type: int
              returned: always
            size:
              description: Its size in bytes.
              type: int
              returned: always
            type:
              description:
                - What is on it, as reported by C(blkid), such as V(ext4), V(ntfs), V(LVM2_member); empty if unknown.
              type: str
              returned: always
            uuid:
              description: UUID of what is on it.
              type: str
              returned: always
            label:
              description: Label of what is on it.
              type: str
              returned: always
            name:
              description: Name of the partition, or volume group and name of the logical volume on the original.
              type: str
              returned: always
left:
  description: Leftovers of what should be absent, each with its remedy. The module fails if there are any.
  returned: when O(state=absent)
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential
from ansible_collections.openisb.backup.plugins.module_utils.host.at_once import at_once
from ansible_collections.openisb.backup.plugins.module_utils.host.plain import plain_all
from ansible_collections.openisb.backup.plugins.module_utils.luns.disks import METHODS, Luns, ending_order
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError
from ansible_collections.openisb.backup.plugins.module_utils.luns.source import without_secrets

COMMON = ("drill", "scratch", "timeout", "expires", "method")
ARGUMENTS = {
    "luns": {
        "type": "list",
        "elements": "dict",
        "options": {
            "name": {"type": "str", "required": True},
            "source": {"type": "str", "required": True},
            "overlay": {"type": "bool", "default": True},
            "sector_size": {"type": "int", "choices": [0, 512, 1024, 2048, 4096], "default": 0},
        },
    },
    "psks": confidential.option("psks", kind="dict"),
    "name": {"type": "str"},
    "drill": {"type": "str"},
    "scratch": {"type": "path", "default": "/var/tmp"},
    "method": {"type": "str", "choices": list(METHODS), "default": "auto"},
    "timeout": {"type": "float", "default": 30},
    "expires": {"type": "int", "default": 0},
    "run_dir": {"type": "path", "default": "/run/openisb"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


class Making:
    """Makes the LUNs that the module was given. ``before``: by name, those that were there already."""

    def __init__(self, module, luns):
        self.params = module.params
        self.check_mode = module.check_mode
        self.luns = luns
        self.changed = False
        self.before = {}

    def attempt(self, wanted):
        """One LUN, and the problem that keeps it from being made."""
        try:
            return {"lun": self._ensure(dict(wanted, **{key: self.params[key] for key in COMMON})), "problem": ""}
        except (LunError, OSError) as error:
            return {"lun": {}, "problem": str(error)}

    def _ensure(self, wanted):
        name = wanted["name"]
        current = self.luns.get(name)
        planned = {key: wanted[key] for key in ("name", "drill", "overlay", "expires")}
        planned["source"] = without_secrets(wanted["source"])
        if current:
            self.before[name] = current
        if current and current["running"]:
            check_same(current, planned)
            return without_state(current)
        self.changed = True
        return planned if self.check_mode else self._make(wanted)

    def _make(self, wanted):
        name = wanted["name"]
        if self.luns.traces(name):
            left = self.luns.stop(name)  # leftovers of a killed module
            if left:
                raise LunError("a LUN of this name is incomplete and cannot be removed: {}".format("; ".join(left)))
        return self.luns.start(wanted, (self.params["psks"] or {}).get(name) or "")


def ensure_present(module, luns):
    making = Making(module, luns)
    wanted = module.params["luns"]
    made = dict(zip((each["name"] for each in wanted), at_once(making.attempt, wanted)))
    after = {name: told["lun"] for name, told in made.items()}
    return {"changed": making.changed, "luns": made, "diff": {"before": making.before, "after": after}}


def check_same(current, planned):
    different = [key for key in ("drill", "source", "overlay") if current[key] != planned[key]]
    if different:
        raise LunError(
            f"it already exists with another {different[0]}: {current[different[0]]}. "
            "Remove it first, or choose another name"
        )


def without_state(lun):
    return {key: value for key, value in lun.items() if key not in ("running", "mounts", "created")}


def ensure_absent(module, luns):
    before, left = {}, []
    there = existing(module, luns, before)
    while there:
        before.update(there)
        left += [] if module.check_mode else end(luns, there)
        there = existing(module, luns, before)  # a killed playbook may have left a module that still makes some
    return {"changed": bool(before), "luns": {}, "left": left, "diff": {"before": before, "after": {}}}


def existing(module, luns, known):
    """The LUNs that should not exist, by name, without those that are known."""
    name, drill = module.params["name"], module.params["drill"]
    names = [name] if name else [lun["name"] for lun in luns.of_drill(drill)]
    return {each: luns.get(each) or {"name": each} for each in names if each not in known and luns.traces(each)}


def end(luns, there):
    """End LUNs; returns descriptions of what is left. One that cannot be ended does not keep the others up."""

    def stop(name):
        try:
            return [f"{name}: {text}" for text in luns.stop(name)]
        except (LunError, OSError) as error:
            return [f"{name}: {error}"]

    return [text for together in ending_order(there) for texts in at_once(stop, together) for text in texts]


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("luns", "drill"))],
        required_one_of=[("name", "drill")],
        supports_check_mode=True,
    )
    luns = Luns(module.params["run_dir"])
    ensure = ensure_present if module.params["state"] == "present" else ensure_absent
    what = module.params["name"] or module.params["drill"]
    try:
        result = plain_all(ensure(module, luns))
    except (LunError, OSError) as error:
        module.fail_json(msg=f"LUNs of {what}: {error}")
    if result.get("left"):
        module.fail_json(msg="Something is left of {}: {}".format(what, "; ".join(result["left"])), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
