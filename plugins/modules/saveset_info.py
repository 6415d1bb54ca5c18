#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_info
short_description: List the savesets of a repository
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Lists savesets without reading their data, by volume, and within a volume in the order in which they were added.
extends_documentation_fragment:
  - openisb.backup.attributes.info
  - openisb.backup.repository
options:
  servers:
    description: Only savesets of these servers. Of all servers if omitted.
    type: list
    elements: str
  volume:
    description: Only savesets of this volume, as C(server/name).
    type: str
  run_id:
    description: Only savesets of this run.
    type: str
"""

EXAMPLES = r"""
- name: List the savesets of one server
  openisb.backup.saveset_info:
    repository: /var/lib/openisb/repository
    servers: [fs1]
"""

RETURN = r"""
encryption:
  description: How the repository is protected; with V(none), nothing proves who wrote it.
  returned: success
  type: str
savesets:
  description:
    - The savesets, each with id, volume, server, run_id, sequence (its place in the order), time, verdict, size (in
      bytes), digest, stats, metadata and origin.
    - Two volumes of one repository with the same C(digest) have the same content.
  returned: success
  type: list
  elements: dict
free_bytes:
  description: Bytes that can still be stored; null if the medium does not report it.
  returned: success
  type: int
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import failing_as, require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)


def is_wanted(facts, params):
    """Whether a saveset is among those requested."""
    return (params["servers"] is None or facts["server"] in params["servers"]) and (
        params["run_id"] is None or facts["run_id"] == params["run_id"]
    )


def main():
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENTS,
            servers={"type": "list", "elements": "str"},
            volume={"type": "str"},
            run_id={"type": "str"},
        ),
        supports_check_mode=True,
    )
    require_libraries(module)
    with failing_as(module, "Repository {}".format(module.params["repository"])):
        repository = open_repository(module)
        found = [saveset_facts(info) for info in repository.savesets(module.params["volume"])]
        module.exit_json(
            changed=False,
            savesets=[facts for facts in found if is_wanted(facts, module.params)],
            free_bytes=repository.free_bytes(),
            encryption=repository.encryption,
        )


if __name__ == "__main__":
    main()
