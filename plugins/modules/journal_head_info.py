#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journal_head_info
short_description: Read the head of a run journal that is kept in the repository
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads the head (number and hash of the newest record) of a listener's journal that M(openisb.backup.journal_head)
    has kept, and verifies its signature.
  - Runs on the backup server, whose key signs heads, in the saveset engine's Python environment.
extends_documentation_fragment:
  - openisb.backup.attributes.info
  - openisb.backup.journal_head
seealso:
  - module: openisb.backup.journal_head
  - module: openisb.backup.run_journal_info
"""

EXAMPLES = r"""
- name: Read the kept head
  openisb.backup.journal_head_info:
    repository: /var/lib/openisb/repository
    listener: backup.example.org
    key: /var/lib/openisb/report-key.pem
  register: kept
"""

RETURN = r"""
head:
  description:
    - The kept head; empty if there is none, or none that can be relied on.
    - Has number (kept heads are numbered from 1 on), seq and hash (of the record), run_id, time (of the record),
      accepted (whether the operator had it kept although the journal did not continue the previous head), repository
      (its id), key (the fingerprint) and signature.
  returned: success
  type: dict
problem:
  description: Why the head cannot be relied on; empty if it can, or if there is none.
  returned: success
  type: str
listener:
  description: As given.
  returned: success
  type: str
repository:
  description: As given.
  returned: success
  type: str
repository_id:
  description: The id of the repository; empty if there is none.
  returned: success
  type: str
name:
  description: The name of the object in the repository.
  returned: success
  type: str
fingerprint:
  description: SHA-256 of the public key in DER form.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.kept_journal import ARGUMENTS, KeptJournal
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.journal.head import HeadError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import SavesetError


def head_and_problem(kept):
    """The kept head, and why it cannot be relied on."""
    try:
        return kept.read(), ""
    except HeadError as error:
        return {}, f"the kept head {kept.name} in the repository {kept.repository} cannot be relied on: {error}"


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module)
    try:
        kept = KeptJournal(module.params["repository"], module.params["listener"], module.params["key"])
        head, problem = head_and_problem(kept)
        module.exit_json(
            changed=False,
            head=head,
            problem=problem,
            listener=kept.listener,
            repository=kept.repository,
            repository_id=kept.repository_id(),
            name=kept.name,
            fingerprint=kept.fingerprint,
        )
    except (HeadError, SavesetError, OSError) as error:
        module.fail_json(msg=f"The kept head of the journal cannot be read: {error}")


if __name__ == "__main__":
    main()
