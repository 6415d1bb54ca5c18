#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_tool
short_description: Keep a copy of the restore program, away from the repository
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Returns the SHA-256 of C(isb-saveset.pyz), the program that lists, verifies and restores savesets without Ansible,
    as built by this version of the collection.
  - With O(path), writes the program there, with C(README.txt), C(requirements.txt) (the Python packages that it needs,
    with their hashes) and C(SHA256SUMS). Run it on the controller, not on a backup server. Anyone who can write to a
    repository can replace the program in it, and a program that is given the passphrase must not come from there.
extends_documentation_fragment:
  - openisb.backup.attributes
requirements:
  - Python 3.11 or newer
options:
  path:
    description: Folder for the copy, created if it is missing. Other files in it are not touched.
    type: path
"""

EXAMPLES = r"""
- name: Keep a copy of the restore program
  openisb.backup.saveset_tool:
    path: /media/recovery/openisb
  delegate_to: localhost
"""

RETURN = r"""
sha256:
  description: SHA-256 of C(isb-saveset.pyz), 64 hex digits.
  returned: success
  type: str
version:
  description: Version of the program.
  returned: success
  type: str
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.version import VERSION
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program import tool
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.names import PROGRAM

MODE = 0o644


def write(module, path, data):
    """Replace a file atomically."""
    temporary = os.path.join(module.tmpdir, os.path.basename(path))
    with open(temporary, "wb") as stream:
        stream.write(data)
    module.atomic_move(temporary, path)
    os.chmod(path, MODE)


def read(path):
    """A file's content, None if it is missing; no more than one of ours can have."""
    try:
        with open(path, "rb") as stream:
            return stream.read(PROGRAM.max_bytes)
    except FileNotFoundError:
        return None


def main():
    module = AnsibleModule(argument_spec={"path": {"type": "path"}}, supports_check_mode=True)
    folder, files = module.params["path"], tool.kept_files()
    before = {}
    try:
        if folder:
            before = {name: read(os.path.join(folder, name)) for name in files}
        changed = [name for name, data in before.items() if data != files[name]]
        if changed and not module.check_mode:
            os.makedirs(folder, exist_ok=True)
            for name in changed:
                write(module, os.path.join(folder, name), files[name])
    except OSError as error:
        module.fail_json(
            msg=f"The copy of {tool.NAME} in {folder}: {error.strerror or error}: name a folder that can be written"
        )
    sums = before.get(tool.SUMS_NAME) or b""
    module.exit_json(
        changed=bool(changed),
        sha256=tool.sha256(files[tool.NAME]),
        version=VERSION,
        diff={
            "before": sums.decode(errors="replace"),
            "after": files[tool.SUMS_NAME].decode() if folder else "",
        },
    )


if __name__ == "__main__":
    main()
