#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: idr_lun
short_description: Create or remove a LUN of a drill on a DR host
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Makes a block device from what a backup server or a storage host serves over NBD, or from a file or device of this
    host, and finds the filesystems on it, including those in partitions (GPT and MBR) and in volume groups.
  - With O(overlay), writes go to a file on this host and never to the source.
  - If the source is gone, or its connection has been silent for O(timeout) seconds, reads fail with an error.
  - The LUN outlives the module. Each step is recorded below O(run_dir) before it is taken, so that what a killed module
    has left can be found and removed.
  - Nothing depends on udev. Each partition is a loop device of its own, and missing device nodes are created.
  - A volume group is imported under a name of OpenISB's own, which is written to the LUN or its overlay. The whole
    volume group must be on one LUN.
extends_documentation_fragment:
  - openisb.backup.attributes
requirements:
  - nbdkit, if O(source) is an export or O(overlay) is set, and C(nbd-client) with the kernel module nbd, or C(nbdfuse)
    with the kernel modules fuse and loop
  - lvm2, if there are volume groups
options:
  name:
    description:
      - Name of the LUN, unique on the host, such as V(idr-20261128T210000Z-4f1c2a.fs1.m).
      - Required with O(state=present).
    type: str
  drill:
    description:
      - The drill that the LUN belongs to.
      - Required with O(state=present). With O(state=absent) and without O(name), all LUNs of the drill are removed.
    type: str
  source:
    description:
      - An export (V(nbd://HOST:PORT/NAME), or V(nbds://USER@HOST:PORT/NAME) for one with TLS), or the path of a file or
        block device of this host.
      - Required with O(state=present).
    type: str
  psk:
    description: The key of an export with TLS, as hex digits. It is kept only in nbdkit's memory.
    type: str
  overlay:
    description:
      - Whether writes go to a file below O(scratch), which is deleted with the LUN.
      - Otherwise writes go to the source.
    type: bool
    default: true
  scratch:
    description:
      - Folder for the overlay; created if it is missing. When its filesystem is full, writes to the LUN fail.
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
    description: When the LUN may be swept, in seconds since 1970; V(0) for never. It is only recorded.
    type: int
    default: 0
  sector_size:
    description:
      - Size in bytes of the logical sectors of the disk that O(source) is a copy of; V(0) if it is not known.
      - An MBR counts in sectors but does not record their size, so it is needed if they were not 512 bytes. A GPT
        records it.
      - A device with sectors of another size and a partition table is used through a loop device.
    type: int
    choices: [0, 512, 1024, 2048, 4096]
    default: 0
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
  state:
    description:
      - Whether the LUN should exist.
      - With V(absent), everything mounted from the LUN is unmounted, and the module fails if anything is left. A mount
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
    name: idr-20261128T210000Z-4f1c2a.fs1.m
    drill: idr-20261128T210000Z-4f1c2a
    source: nbds://openisb@backup1:45001/fs1-m
    psk: "{{ export.psk }}"
    scratch: /var/lib/openisb/scratch
  register: made

- name: Mount what is on it
  openisb.backup.idr_mount:
    device: "{{ made.lun.parts[0].device }}"
    path: /srv/dr/fs1/m
    fstype: "{{ made.lun.parts[0].type | openisb.backup.idr_mount_type }}"
    opts: "{{ made.lun.parts[0].type | openisb.backup.idr_mount_options(made.lun.writable) }}"

- name: Remove all LUNs of the drill
  openisb.backup.idr_lun:
    drill: idr-20261128T210000Z-4f1c2a
    state: absent
"""

RETURN = r"""
lun:
  description: The LUN; empty if it is absent. In check mode, what is known before it is made.
  returned: success
  type: dict
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
          table; and, after a partition with a volume group, the logical volumes of that group, with the same number.
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
from ansible_collections.openisb.backup.plugins.module_utils.host.plain import plain_all
from ansible_collections.openisb.backup.plugins.module_utils.luns.disks import METHODS, Luns
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError
from ansible_collections.openisb.backup.plugins.module_utils.luns.source import without_secrets

WANTED = ("name", "drill", "source", "overlay", "scratch", "timeout", "expires", "method", "sector_size")


def ensure_present(module, luns):
    params = module.params
    current = luns.get(params["name"])
    planned = {key: params[key] for key in ("name", "drill", "overlay", "expires")}
    planned["source"] = without_secrets(params["source"])
    if current and current["running"]:
        check_same(current, planned)
        return {"changed": False, "lun": without_state(current), "diff": {"before": current, "after": current}}
    if module.check_mode:
        return {"changed": True, "lun": planned, "diff": {"before": current or {}, "after": planned}}
    if luns.traces(params["name"]):
        left = luns.stop(params["name"])  # leftovers of a killed module
        if left:
            raise LunError("a LUN of this name is incomplete and cannot be removed: {}".format("; ".join(left)))
    lun = luns.start({key: params[key] for key in WANTED}, params["psk"] or "")
    return {"changed": True, "lun": lun, "diff": {"before": current or {}, "after": lun}}


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
    name, drill = module.params["name"], module.params["drill"]
    names = [name] if name else [lun["name"] for lun in luns.of_drill(drill)]
    there = [each for each in names if luns.traces(each)]
    before = {each: luns.get(each) or {"name": each} for each in there}
    left = []
    if not module.check_mode:
        for each in there:
            left += [f"{each}: {text}" for text in luns.stop(each)]
    return {"changed": bool(there), "lun": {}, "left": left, "diff": {"before": before, "after": {}}}


def main():
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str"},
            "drill": {"type": "str"},
            "source": {"type": "str"},
            "psk": confidential.option("psk"),
            "overlay": {"type": "bool", "default": True},
            "scratch": {"type": "path", "default": "/var/tmp"},
            "method": {"type": "str", "choices": list(METHODS), "default": "auto"},
            "timeout": {"type": "float", "default": 30},
            "expires": {"type": "int", "default": 0},
            "sector_size": {"type": "int", "choices": [0, 512, 1024, 2048, 4096], "default": 0},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ("name", "drill", "source"))],
        required_one_of=[("name", "drill")],
        supports_check_mode=True,
    )
    what = module.params["name"] or module.params["drill"]
    luns = Luns(module.params["run_dir"])
    ensure = ensure_present if module.params["state"] == "present" else ensure_absent
    try:
        result = plain_all(ensure(module, luns))
    except (LunError, OSError) as error:
        module.fail_json(msg=f"LUN {what}: {error}")
    if result.get("left"):
        module.fail_json(msg="Something is left of {}: {}".format(what, "; ".join(result["left"])), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
