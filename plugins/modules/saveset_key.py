#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_key
short_description: Add or remove a key that opens a repository
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Adds a passphrase, an escrow public key, or a write-only key to an encrypted repository, or removes one.
  - To rotate a key, add the new one, then remove the old one. No data is rewritten.
  - Requires a secret that can read savesets; a server with a write-only key is refused. The last key that can read
    savesets cannot be removed.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
options:
  state:
    description: Whether the key should open the repository.
    type: str
    choices: [present, absent]
    default: present
  method:
    description:
      - V(scrypt) is a passphrase that can read and write.
      - V(x25519) is an escrow key; anyone with its private key can read and write.
      - V(writer) is a passphrase that can only write, for a backup server.
    type: str
    choices: [scrypt, x25519, writer]
  new_passphrase:
    description:
      - The passphrase of the key, for the methods V(scrypt) and V(writer).
      - If it already opens such a key, that key is left unchanged.
    type: str
  public_key:
    description: The public key in PEM form, for the method V(x25519).
    type: str
  label:
    description: A name for people to recognise a new key by. It is stored in clear text.
    type: str
    default: ""
  key_id:
    description:
      - Id of the key to remove, as returned by M(openisb.backup.saveset_key_info), instead of O(method) and its secret.
    type: str
seealso:
  - module: openisb.backup.saveset_key_info
"""

EXAMPLES = r"""
- name: Give the backup server a key with which it cannot read savesets
  openisb.backup.saveset_key:
    repository: /var/lib/openisb/repository
    passphrase: "{{ lookup('ansible.builtin.env', 'OPENISB_PASSPHRASE') }}"
    method: writer
    new_passphrase: "{{ vault_backup1_passphrase }}"
    label: backup1

- name: Let the private key in the safe open the repository
  openisb.backup.saveset_key:
    repository: /var/lib/openisb/repository
    passphrase: "{{ lookup('ansible.builtin.env', 'OPENISB_PASSPHRASE') }}"
    method: x25519
    public_key: "{{ lookup('ansible.builtin.file', 'escrow-public.pem') }}"
    label: safe

- name: Remove a key
  openisb.backup.saveset_key:
    repository: /var/lib/openisb/repository
    passphrase: "{{ lookup('ansible.builtin.env', 'OPENISB_PASSPHRASE') }}"
    state: absent
    key_id: 0123456789abcdef0123456789abcdef
"""

RETURN = r"""
key:
  description:
    - The key, with id, method, created, label, public_key and reads; null if it does not exist.
    - In check mode, a key that would be added has an empty id.
  returned: success
  type: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import key_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import failing_as, require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential
from ansible_collections.openisb.backup.plugins.module_utils.saveset.access.keyfile import KeyInfo
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import InvalidValue

SECRETS = {"scrypt": "new_passphrase", "writer": "new_passphrase", "x25519": "public_key"}


def find(files, params):
    """The key that the module was given, None if it does not exist."""
    if params["key_id"]:
        return next((info for info in files.all() if info.id == params["key_id"]), None)
    secret = secret_of_key(params)
    if params["method"] == "x25519":
        return files.find_escrow(secret)
    return files.find_passphrase(params["method"], secret)


def secret_of_key(params):
    """The secret that the key is made from. Raises InvalidValue if it was not given."""
    option = SECRETS[params["method"]]
    if not params[option]:
        raise InvalidValue(f"method {params['method']}", f"it needs {option}", f"Set {option}")
    return params[option].encode()


def add(files, params):
    """Add the key."""
    adding = {"scrypt": files.add_passphrase, "writer": files.add_writer, "x25519": files.add_escrow}
    return adding[params["method"]](secret_of_key(params), label=params["label"])


def plan(files, params):
    """The key that would be added, as far as that is known."""
    files.check_change()
    if params["method"] != "x25519":
        files.check_apart(params["method"], secret_of_key(params))
    return key_facts(KeyInfo(id="", method=params["method"], created="", label=params["label"]))


def apply(module, files):
    """Ensure the requested state; return the key before and after."""
    params = module.params
    found = find(files, params)
    before = key_facts(found) if found else None
    if params["state"] == "present":
        if found:
            return before, before
        return before, plan(files, params) if module.check_mode else key_facts(add(files, params))
    if found:
        files.check_remove(found.id)
        if not module.check_mode:
            files.remove(found.id)
    return before, None


def main():
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENTS,
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            method={"type": "str", "choices": ["scrypt", "x25519", "writer"]},
            new_passphrase=confidential.option("new_passphrase"),
            public_key={"type": "str", "no_log": False},
            label={"type": "str", "default": ""},
            key_id={"type": "str", "no_log": False},
        ),
        required_if=[("state", "present", ["method"])],
        required_one_of=[("method", "key_id")],
        mutually_exclusive=[("method", "key_id")],
        supports_check_mode=True,
    )
    require_libraries(module)
    with failing_as(module, "Keys of repository {}".format(module.params["repository"])):
        before, after = apply(module, open_repository(module).key_files)
        module.exit_json(changed=before != after, key=after, diff={"before": {"key": before}, "after": {"key": after}})


if __name__ == "__main__":
    main()
