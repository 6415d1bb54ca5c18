#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lun_snapshot_info
short_description: List LUN files and the snapshots of them
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Returns the LUN files of a storage host, its free disk space, and which runs' snapshots it has, for the storage
    drivers C(btrfs) and C(file).
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  driver:
    description: The storage driver.
    type: str
    choices: [btrfs, file]
    required: true
  directory:
    description: The folder that holds the snapshots. It may not exist yet.
    type: path
    required: true
  luns:
    description: The LUN files that must exist, by serial. One message names all that are missing.
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: Look for the LUNs and list the snapshots
  openisb.backup.lun_snapshot_info:
    driver: btrfs
    directory: /srv/pool/snapshots
    luns:
      600a098000000011: /srv/pool/luns/600a098000000011.lun
"""

RETURN = r"""
luns:
  description:
    - For each LUN in O(luns), by serial, its size and allocated size, both in bytes, and its name on the storage, which
      is that of the file.
  returned: success
  type: dict
snapshots:
  description:
    - The existing snapshots, each with run_id, path, luns (serials) and luns_bytes (their sizes, by serial).
  returned: success
  type: list
  elements: dict
free_bytes:
  description: Bytes that can still be written where the snapshots are stored.
  returned: success
  type: int
metadata_free_bytes:
  description:
    - With driver C(btrfs), bytes that the pool can still use for metadata. A pool that runs out of it becomes
      read-only.
    - With another driver, null.
  returned: success
  type: int
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.volumes import device_size
from ansible_collections.openisb.backup.plugins.module_utils.storage.snapshots import (
    SnapshotError,
    SnapshotFolder,
    free_bytes,
    metadata_free_bytes,
)


def nearest_existing(path):
    """The folder itself, or its nearest parent that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def describe(path):
    """Size, allocated bytes and name of a LUN file."""
    name = os.path.splitext(os.path.basename(path))[0]
    return {"size": device_size(path), "allocated": os.stat(path).st_blocks * 512, "name": name}


def main():
    module = AnsibleModule(
        argument_spec={
            "driver": {"type": "str", "choices": ["btrfs", "file"], "required": True},
            "directory": {"type": "path", "required": True},
            "luns": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    luns = module.params["luns"]
    missing = [f"{serial} ({path})" for serial, path in sorted(luns.items()) if not os.path.isfile(path)]
    if missing:
        module.fail_json(
            msg="The storage has no LUN with serial {}: correct the serial in the inventory, or the storage host's "
            "settings".format(", ".join(missing))
        )
    driver, directory = module.params["driver"], module.params["directory"]
    folder, there = SnapshotFolder(driver, directory), nearest_existing(directory)
    try:
        metadata = metadata_free_bytes(there) if driver == "btrfs" else None
    except SnapshotError as error:
        module.fail_json(msg=str(error))
    module.exit_json(
        changed=False,
        luns={serial: describe(path) for serial, path in luns.items()},
        snapshots=[dict(each, luns_bytes=folder.sizes(each["run_id"])) for each in folder.snapshots()],
        free_bytes=free_bytes(there),
        metadata_free_bytes=metadata,
    )


if __name__ == "__main__":
    main()
