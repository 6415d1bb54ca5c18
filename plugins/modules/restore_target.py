#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: restore_target
short_description: Check that a device or file can be restored to, and make the file
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Refuses a device that is mounted, in use or too small, a file that has content, and either of them as long as a
    drill has a LUN of it, before anything is written.
  - Makes a missing file, sparse, in the size of the volume.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  path:
    description: The block device or file.
    type: path
    required: true
  size:
    description: Size of the volume in bytes.
    type: int
    required: true
  overwrite:
    description: Whether a file that has content may be written over. It is emptied then, unless O(keep) is set.
    type: bool
    default: false
  keep:
    description: Keep what a file holds that may be written over, and only make it as long as the volume.
    type: bool
    default: false
  run_dir:
    description: Folder for volatile state, where the LUNs of drills are on record.
    type: path
    default: /run/openisb
"""

EXAMPLES = r"""
- name: Make the file to restore to
  openisb.backup.restore_target:
    path: /srv/dr/fs1-m.img
    size: 268435456
"""

RETURN = r"""
path:
  description: The block device or file, without links.
  returned: success
  type: str
size:
  description: Its size in bytes.
  returned: success
  type: int
"""

import os
import stat

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.idr.luns_errors import LunError
from ansible_collections.openisb.backup.plugins.module_utils.idr.luns_records import FOLDER, Records
from ansible_collections.openisb.backup.plugins.module_utils.volumes import device_size


class TargetError(Exception):
    """The target must not be written to; the text names it, the cause and the way out."""


def check_unused(path, run_dir):
    """Refuse what a drill reads: it would change under those who work with the drill's LUN."""
    for lun in Records(os.path.join(run_dir, FOLDER)).all():
        if os.path.realpath(lun["source"]) == path:
            raise TargetError(
                "{path} is what {name} is made from: end that drill first ('ansible-playbook idr.yml --tags teardown "
                "-e idr_end={drill}')".format(path=path, **lun)
            )


def check_device(path, size):
    """Refuse a device that is in use or too small."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_EXCL))
    except OSError as error:
        raise TargetError(
            f"{path} is mounted or in use ({error.strerror}): unmount it, or name another device"
        ) from error
    found = device_size(path)
    if found < size:
        raise TargetError(f"{path} is too small: it has {found} bytes and the volume has {size}: name a larger device")
    return False


def check_file(path, size, overwrite, keep=False):
    """Refuse a file with content that may not go, or one that something is attached to. Whether it has to be made."""
    if not os.path.isdir(os.path.dirname(path)):
        raise TargetError(f"there is no folder {os.path.dirname(path)}: make it, or name another file")
    if not os.path.exists(path):
        return True
    if loop_devices(path):
        raise TargetError(f"{path} is attached to {loop_devices(path)[0]}: detach it, or name another file")
    if os.path.getsize(path) and not overwrite:
        raise TargetError(
            f"{path} is there already: name another file, or allow it to be written over (restore_overwrite=true)"
        )
    return (overwrite and not keep) or os.path.getsize(path) != size


def loop_devices(path):
    """Loop devices that a file is attached to."""
    found = []
    for name in sorted(os.listdir("/sys/block")) if os.path.isdir("/sys/block") else []:
        backing = f"/sys/block/{name}/loop/backing_file"
        if os.path.exists(backing):
            with open(backing, encoding="utf-8", errors="replace") as stream:
                found += ["/dev/" + name] if stream.read().rstrip("\n") == path else []
    return found


def make_file(path, size, keep=False):
    """A sparse file of this size: empty, or with the content that it has."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | (0 if keep else os.O_TRUNC), 0o600), "wb") as stream:
        stream.truncate(size)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "size": {"type": "int", "required": True},
            "overwrite": {"type": "bool", "default": False},
            "keep": {"type": "bool", "default": False},
            "run_dir": {"type": "path", "default": "/run/openisb"},
        },
        supports_check_mode=True,
    )
    path, size, keep = os.path.realpath(module.params["path"]), module.params["size"], module.params["keep"]
    is_device = os.path.exists(path) and stat.S_ISBLK(os.stat(path).st_mode)
    before = {"size": device_size(path)} if os.path.exists(path) else {}
    try:
        check_unused(path, module.params["run_dir"])
        make = check_device(path, size) if is_device else check_file(path, size, module.params["overwrite"], keep)
        if make and not module.check_mode:
            make_file(path, size, keep)
    except (TargetError, LunError, OSError) as error:
        module.fail_json(msg=f"Cannot restore: {error}")
    after = {"size": size if make else before["size"]}
    module.exit_json(changed=make, path=path, size=after["size"], diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
