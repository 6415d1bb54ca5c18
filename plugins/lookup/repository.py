# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one place that decides where a repository is and which secrets open it, for every playbook and role."""

from __future__ import annotations

DOCUMENTATION = r"""
name: repository
short_description: Where a backup server's repository is, and the secrets that open it
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Returns the options that the modules of the action group C(repository) open a repository with, for their
    C(module_defaults).
  - They come from the variables of the backup server. If it has no C(repository_passphrase), that comes from the
    environment variable E(OPENISB_PASSPHRASE) of the controller.
  - A variable that a purpose does not need is not evaluated. So it may be a lookup that only works where it is needed.
options:
  _terms:
    description:
      - What the repository is opened for. One of the following words.
      - V(write) makes and lists savesets. It prefers C(repository_writer_passphrase) to C(repository_passphrase), and
        uses no private key.
      - V(read) reads savesets. It uses C(repository_passphrase), and C(repository_private_key) with its password.
      - V(manage) is for what works with either passphrase, and does more with the one that reads. It uses what V(read)
        uses, and C(repository_writer_passphrase) if there is no other passphrase.
      - V(create) creates a repository and its keys. It uses what V(manage) uses, but no private key.
    type: list
    elements: str
    required: true
  host:
    description: The backup server, if it is not the task's own host.
    type: str
"""

EXAMPLES = r"""
- name: List savesets
  openisb.backup.saveset_info:
  module_defaults:
    group/openisb.backup.repository: "{{ lookup('openisb.backup.repository', 'write') }}"
"""

RETURN = r"""
_raw:
  description:
    - For each word, a dictionary with C(repository) (the path of its folder), C(encryption), C(passphrase),
      C(private_key) (a path on the backup server) and C(private_key_password), each only if the backup server has it.
  type: list
  elements: dict
"""

import os
from collections.abc import Mapping
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

ENVIRONMENT = "OPENISB_PASSPHRASE"
PASSPHRASE = "repository_passphrase"
WRITER = "repository_writer_passphrase"
PRIVATE_KEY = {"private_key": ("repository_private_key",), "private_key_password": ("repository_private_key_password",)}
ENCRYPTION = {"encryption": ("repository_encryption",)}
#: By purpose, the variables that each option of a module is taken from; the first one set is used.
VARIABLES: dict[str, dict[str, tuple[str, ...]]] = {
    "write": {"passphrase": (WRITER, PASSPHRASE)},
    "read": {"passphrase": (PASSPHRASE,), **PRIVATE_KEY},
    "manage": {"passphrase": (PASSPHRASE, WRITER), **PRIVATE_KEY},
    "create": {"passphrase": (PASSPHRASE, WRITER)},
}


class LookupModule(LookupBase):
    """Looks up what opens repositories."""

    def run(self, terms: list[str], variables: Mapping[str, Any] | None = None, **kwargs: Any) -> list[dict[str, str]]:
        self.set_options(var_options=variables, direct=kwargs)
        unknown = [term for term in terms if term not in VARIABLES]
        if unknown:
            raise AnsibleLookupError(f"A repository is opened to {', '.join(VARIABLES)}; not to {unknown[0]}")
        of_host = self._variables_of(self.get_option("host"), variables or {})
        return [self._found(of_host, VARIABLES[term]) for term in terms]

    def _variables_of(self, host: str | None, variables: Mapping[str, Any]) -> Mapping[str, Any]:
        if host is None:
            return variables
        if host not in variables["hostvars"]:
            raise AnsibleLookupError(f"The inventory has no backup server {host}: name one of the group backup_servers")
        found: Mapping[str, Any] = variables["hostvars"][host]
        return found

    def _found(self, variables: Mapping[str, Any], options: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
        found = {option: self._first(variables, names) for option, names in {**ENCRYPTION, **options}.items()}
        host = self._templar.template(variables.get("openisb_host", {}))
        found["repository"] = host.get("repository", "")
        return {option: value for option, value in found.items() if value}

    def _first(self, variables: Mapping[str, Any], names: tuple[str, ...]) -> str:
        for name in names:
            value = self._templar.template(variables[name]) if name in variables else ""
            if not value and name == PASSPHRASE:
                value = os.environ.get(ENVIRONMENT)
            if value:
                return str(value)
        return ""
