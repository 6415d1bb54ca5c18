#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_repository
short_description: Create a repository for savesets, or verify that it can be opened
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Creates the repository if there is none, and otherwise proves that it can be opened with this passphrase.
  - Never changes or removes an existing repository.
  - Except in check mode, tries every operation of the medium that backups and prunes need, on a lease and a file of its
    own that are removed afterwards. It fails if the medium refuses something, naming the operation, the error and the
    remedy. If the medium merely behaves differently, it warns.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
options:
  chunk_size:
    description: Size of a chunk in bytes, for a new repository.
    type: int
    default: 262144
  state:
    description: V(present) creates it if it is missing; V(checked) fails if it is missing.
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
  description: Bytes that can still be stored; null if the medium does not report it.
  returned: success
  type: int
id:
  description: Id of the repository, 32 hex digits; empty in check mode if it is missing.
  returned: success
  type: str
savesets:
  description: All savesets, as M(openisb.backup.saveset_info) returns them.
  returned: success with O(state=checked)
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import failing_as, require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
    secret_of,
    warn_of_swap,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import NotARepository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import Repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store


def create(module):
    repository = Repository.create(
        open_store(module.params["repository"]),
        secret_of(module),
        encryption=module.params["encryption"],
        chunk_size=module.params["chunk_size"],
    )
    for text in repository.warnings:
        module.warn(text)
    return repository


def open_or_create(module):
    """The repository (None in check mode if it would be created), and whether it is new."""
    try:
        repository = open_repository(module)
    except NotARepository:
        if module.params["state"] == "checked":
            raise
        return None if module.check_mode else create(module), True
    if not module.check_mode:
        repository.try_writing()
    return repository, False


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
        checked = module.params["state"] == "checked"
        module.exit_json(
            **({"savesets": [saveset_facts(info) for info in repository.savesets()]} if checked else {}),
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
