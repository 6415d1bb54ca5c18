#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_file
short_description: Write a secret to its file, and nowhere else
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Writes one line into a file that only its owner can read, for programs that take a password from a file.
  - Unlike M(ansible.builtin.copy), it puts no temporary file with the secret elsewhere, on the controller or the host.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  path:
    description: The file. Its folder must exist. An existing file keeps its owner.
    type: path
    required: true
  secret:
    description: The file's only line.
    type: str
    required: true
seealso:
  - module: openisb.backup.mbf
"""

EXAMPLES = r"""
- name: Write the password to its file
  openisb.backup.secret_file:
    path: /root/mbf-password
    secret: "{{ isb_mbf_password }}"
"""

RETURN = r"""
path:
  description: The file.
  returned: success
  type: str
"""

import contextlib
import os
import stat
import tempfile

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential

MODE = 0o600


def is_there(path, content):
    """Whether the file already holds that, and only its owner can access it."""
    try:
        with open(path, "rb") as stream:
            mode = stat.S_IMODE(os.fstat(stream.fileno()).st_mode)
            return mode == MODE and stream.read(len(content) + 1) == content
    except FileNotFoundError:
        return False


def write(path, content):
    """Replace the file atomically, with one that only its owner could ever access."""
    descriptor, beside = tempfile.mkstemp(prefix=".openisb-", dir=os.path.dirname(path))
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        if os.path.exists(path):
            status = os.stat(path)
            os.chown(beside, status.st_uid, status.st_gid)
        os.chmod(beside, MODE)
        os.rename(beside, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(beside)
        raise


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "secret": dict(confidential.option("secret"), required=True),
        },
        supports_check_mode=True,
    )
    path = os.path.realpath(module.params["path"])
    content = module.params["secret"].encode() + b"\n"
    try:
        changed = not is_there(path, content)
        if changed and not module.check_mode:
            write(path, content)
    except OSError as error:
        module.fail_json(msg=f"{path} cannot be written: {error.strerror}: make its folder, or name another file")
    diff = {"before": {"path": path, "current": not changed}, "after": {"path": path, "current": True}}
    module.exit_json(changed=changed, path=path, diff=diff)


if __name__ == "__main__":
    main()
