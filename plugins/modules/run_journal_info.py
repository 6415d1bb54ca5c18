#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_journal_info
short_description: Read the run journal and check its hash chain
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Lists the runs that are open, and records where O(run_id), O(events) or O(since) is given.
  - Checks the whole hash chain and says where it was changed, cut or reordered.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  path:
    description: The journal file. A missing file is an empty journal.
    type: path
    required: true
  run_id:
    description: The run whose records are wanted.
    type: str
  events:
    description: The events whose records are wanted, of O(run_id) or, without it, of all runs.
    type: list
    elements: str
  savesets:
    description: Ids of the savesets of which it is wanted what the journal knows.
    type: list
    elements: str
  since:
    description:
      - The number (C(seq)) of the first record that is wanted, also of those of O(run_id) and O(events).
    type: int
seealso:
  - module: openisb.backup.run_journal
  - module: openisb.backup.journal_head_info
"""

EXAMPLES = r"""
- name: Which runs are open
  openisb.backup.run_journal_info:
    path: /var/lib/openisb/journal/runs.jsonl
  register: journal
"""

RETURN = r"""
open_runs:
  description:
    - Runs that were opened and not closed, oldest first.
    - Each with run_id, opened, last_event, last_time and data.
  returned: success
  type: list
  elements: dict
records:
  description: The records that were asked for, oldest first; none without O(run_id), O(events) and O(since).
  returned: success
  type: list
  elements: dict
savesets:
  description:
    - Those of O(savesets) that the journal knows, as a run made them or somebody took them into it.
    - Each with id, volume, sequence and time.
  returned: success
  type: list
  elements: dict
count:
  description: How many records there are.
  returned: success
  type: int
chain_head:
  description: The hash of the newest record; 64 zeros where there is none.
  returned: success
  type: str
problems:
  description: Where the chain does not hold; empty where it does.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.journal import (
    GENESIS,
    Journal,
    JournalError,
    chain_problems,
    open_runs,
)
from ansible_collections.openisb.backup.plugins.module_utils.known import known_savesets


def wanted(records, run_id, events, since):
    """The records that were asked for; those from record ``since`` on are told by their place, whatever they say."""
    if run_id is None and events is None and since is None:
        return []
    return [
        record
        for record in records[max(since or 1, 1) - 1 :]
        if run_id in (None, record["run_id"]) and (events is None or record["event"] in events)
    ]


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "run_id": {"type": "str"},
            "events": {"type": "list", "elements": "str"},
            "savesets": {"type": "list", "elements": "str"},
            "since": {"type": "int"},
        },
        supports_check_mode=True,
    )
    asked = [module.params[name] for name in ("run_id", "events", "since")]
    try:
        records = Journal(module.params["path"]).records()
    except (JournalError, OSError) as error:
        module.fail_json(msg=f"The journal cannot be read: {error}")
    module.exit_json(
        changed=False,
        open_runs=open_runs(records),
        savesets=known_savesets(records, module.params["savesets"] or []),
        records=wanted(records, *asked),
        count=len(records),
        chain_head=records[-1]["hash"] if records else GENESIS,
        problems=chain_problems(records),
    )


if __name__ == "__main__":
    main()
