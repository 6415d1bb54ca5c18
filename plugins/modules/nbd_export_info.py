#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nbd_export_info
short_description: List the NBD exports of this host
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Lists the exports that M(openisb.backup.nbd_export) and M(openisb.backup.saveset_export) recorded on this host,
    whether or not they still run.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
"""

EXAMPLES = r"""
- name: List the exports
  openisb.backup.nbd_export_info:
"""

RETURN = r"""
exports:
  description:
    - The exports, each with name, run_id, path, readonly, uri, port, pid, ticks and running.
    - Those of savesets have the drill's id as C(run_id), the repository as C(path), and also C(expires) and C(saveset).
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports


def main():
    module = AnsibleModule(
        argument_spec={"run_dir": {"type": "path", "default": "/run/openisb"}}, supports_check_mode=True
    )
    module.exit_json(changed=False, exports=Exports(module.params["run_dir"]).list())


if __name__ == "__main__":
    main()
