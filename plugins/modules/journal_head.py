#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: journal_head
short_description: Keep the head of a run journal in the repository
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Signs the number and hash of a journal's newest record and puts them into the repository, in place of the head that
    is kept there. A journal that was cut or rewritten does not continue a kept head.
  - It is up to the caller to prove that the journal continues the previous head.
  - Runs on the backup server, whose key signs heads, in the saveset engine's Python environment.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.journal_head
options:
  record:
    description: The newest record of the journal, of which C(seq), C(hash), C(run_id) and C(time) are kept.
    type: dict
    required: true
  after:
    description: The highest number of any kept head, wherever it is kept. The new head gets a higher one.
    type: int
    default: 0
  accepted:
    description:
      - Whether the operator has accepted that the journal does not continue the previous head.
      - Otherwise, a kept head that cannot be relied on is not replaced.
    type: bool
    default: false
  copy_to:
    description:
      - Folder on the controller, made if it is missing, into which a copy of the head is written.
      - The user of C(ansible-playbook) writes it.
    type: path
seealso:
  - module: openisb.backup.journal_head_info
  - module: openisb.backup.run_journal
"""

EXAMPLES = r"""
- name: Keep the head
  openisb.backup.journal_head:
    repository: /var/lib/openisb/repository
    listener: backup.example.org
    key: /var/lib/openisb/report-key.pem
    record: "{{ journal.records | last }}"
"""

RETURN = r"""
head:
  description: The head as it is kept, see M(openisb.backup.journal_head_info). In check mode, as it would be kept.
  returned: success
  type: dict
name:
  description: The name of the object in the repository.
  returned: success
  type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.kept_journal import ARGUMENTS, KeptJournal
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.journal.head import HeadError, decode, encode
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import SavesetError


def replaced(kept, accepted):
    """The head that is kept now; empty if it cannot be relied on and that was accepted. Raises HeadError."""
    try:
        return kept.read()
    except HeadError:
        if not accepted:
            raise
        return {}


def new_head(kept, before, params):
    """The head to keep."""
    record = params["record"]
    if not params["accepted"] and record.get("seq", 0) < before.get("seq", 0):
        raise HeadError(f"record {record.get('seq')} is older than record {before['seq']}, which is already kept")
    head = kept.sign(
        {
            "number": max(before.get("number", 0), params["after"]) + 1,
            "accepted": params["accepted"],
            **{name: record.get(name) for name in ("seq", "hash", "run_id", "time")},
        }
    )
    return decode(encode(head), kept.listener)


def main():
    module = AnsibleModule(
        argument_spec={
            **ARGUMENTS,
            "record": {"type": "dict", "required": True},
            "after": {"type": "int", "default": 0},
            "accepted": {"type": "bool", "default": False},
            "copy_to": {"type": "path"},  # for the action
        },
        supports_check_mode=True,
    )
    require_libraries(module)
    try:
        kept = KeptJournal(module.params["repository"], module.params["listener"], module.params["key"])
        before = replaced(kept, module.params["accepted"])
        head = new_head(kept, before, module.params)
        if not module.check_mode:
            kept.write(head)
    except (HeadError, SavesetError, OSError) as error:
        module.fail_json(msg=f"The head of the journal was not kept: {error}")
    module.exit_json(changed=True, head=head, name=kept.name, diff={"before": before, "after": head})


if __name__ == "__main__":
    main()
