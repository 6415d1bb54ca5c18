#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: idr_lun_info
short_description: List the LUNs of drills on this host
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Lists the LUNs that M(openisb.backup.idr_lun) recorded on this host, whether or not they still run, and what is
    mounted from them.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  drill:
    description: List only the LUNs of this drill.
    type: str
  probe:
    description: Whether to test that the source of each LUN answers, which takes some seconds if it does not.
    type: bool
    default: false
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
seealso:
  - module: openisb.backup.idr_lun
"""

EXAMPLES = r"""
- name: List the LUNs
  openisb.backup.idr_lun_info:
"""

RETURN = r"""
luns:
  description:
    - The LUNs, each with what M(openisb.backup.idr_lun) returns of it as far as it was made, and C(created) (seconds
      since 1970), C(running) (whether it is complete) and C(mounts).
    - With O(probe), also C(trouble), which says what keeps it from its source, or is empty.
    - C(mounts) is a list of dicts with C(device), C(path) and C(type), in the order in which they were mounted.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.plain import plain_all
from ansible_collections.openisb.backup.plugins.module_utils.luns.disks import Luns
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError


def main():
    module = AnsibleModule(
        argument_spec={
            "drill": {"type": "str"},
            "probe": {"type": "bool", "default": False},
            "run_dir": {"type": "path", "default": "/run/openisb"},
        },
        supports_check_mode=True,
    )
    try:
        known = Luns(module.params["run_dir"])
        luns = known.of_drill(module.params["drill"] or "")
        for lun in luns if module.params["probe"] else []:
            lun["trouble"] = known.trouble(lun["name"])
    except (LunError, OSError) as error:
        module.fail_json(msg=f"The LUNs cannot be listed: {error}")
    module.exit_json(changed=False, luns=plain_all(luns))


if __name__ == "__main__":
    main()
