#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_repository
short_description: Create a repository for savesets, or check that it can be opened
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Creates the repository where there is none, and otherwise proves that it can be opened with this passphrase.
  - Never changes or removes a repository that is there.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
options:
  chunk_size:
    description: Size of a chunk in bytes, for a new repository.
    type: int
    default: 262144
  state:
    description: V(present) creates it where it is missing; V(checked) fails where it is missing.
    type: str
    choices: [present, checked]
    default: present
"""

EXAMPLES = r"""
- name: Create the repository
  openisb.backup.saveset_repository:
    repository: /var/lib/openisb/repository
    passphrase: "{{ lookup('ansible.builtin.env', 'OPENISB_PASSPHRASE') }}"
"""

RETURN = r"""
free_bytes:
  description: Bytes that can still be stored; null where the medium cannot tell.
  returned: success
  type: int
id:
  description: Identity of the repository, 32 hex digits; empty in check mode where it is missing.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import NotARepository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import Repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import open_store
from ansible_collections.openisb.backup.plugins.module_utils.saveset_module import (
    REPOSITORY_ARGUMENTS,
    failing_as,
    open_repository,
    require_libraries,
    secret_of,
    warn_of_swap,
)


def create(module):
    return Repository.create(
        open_store(module.params["repository"]),
        secret_of(module),
        encryption=module.params["encryption"],
        chunk_size=module.params["chunk_size"],
    )


def open_or_create(module):
    """The repository (None in check mode where it would be made), and whether it is new."""
    try:
        return open_repository(module), False
    except NotARepository:
        if module.params["state"] == "checked":
            raise
    return None if module.check_mode else create(module), True


def main():
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENTS,
            chunk_size={"type": "int", "default": 262144},
            state={"type": "str", "choices": ["present", "checked"], "default": "present"},
        ),
        supports_check_mode=True,
    )
    require_libraries(module)
    warn_of_swap(module)
    with failing_as(module, "Repository {}".format(module.params["repository"])):
        repository, changed = open_or_create(module)
        module.exit_json(
            changed=changed,
            free_bytes=repository.free_bytes() if repository else None,
            id=repository.id if repository else "",
            diff={
                "before": {"state": "absent" if changed else "present"},
                "after": {"state": "present"},
            },
        )


if __name__ == "__main__":
    main()
