#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_key_info
short_description: List the keys that open a repository
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Lists the keys that open a repository, oldest first. Nothing that it returns is secret.
extends_documentation_fragment:
  - openisb.backup.attributes.info
  - openisb.backup.repository
seealso:
  - module: openisb.backup.saveset_key
"""

EXAMPLES = r"""
- name: List the keys
  openisb.backup.saveset_key_info:
    repository: /var/lib/openisb/repository
"""

RETURN = r"""
repository_keys:
  description:
    - The keys, each with id, method, created (UTC, ISO 8601), label, public_key (hex, of an escrow key) and reads
      (whether it can read savesets).
  returned: success
  type: list
  elements: dict
problems:
  description: Key files that are damaged or were made by somebody else, each with object and problem.
  returned: success
  type: list
  elements: dict
write_only:
  description: Whether the given secret can only write.
  returned: success
  type: bool
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import key_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import failing_as, require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)


def main():
    module = AnsibleModule(argument_spec=dict(REPOSITORY_ARGUMENTS), supports_check_mode=True)
    require_libraries(module)
    with failing_as(module, "Keys of repository {}".format(module.params["repository"])):
        repository = open_repository(module)
        module.exit_json(
            changed=False,
            repository_keys=[key_facts(info) for info in repository.key_files.all()],
            problems=[{"object": name, "problem": problem} for name, problem in repository.key_files.problems()],
            write_only=repository.write_only,
        )


if __name__ == "__main__":
    main()
