#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_journal_info
short_description: Read the run journal and verify its hash chain
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Lists the open runs and, if O(run_id), O(events) or O(since) is given, records.
  - Verifies the whole hash chain and reports where it was changed, cut or reordered. Only one record at a time and the
    requested ones are held in memory.
extends_documentation_fragment:
  - openisb.backup.attributes.info
options:
  path:
    description:
      - The journal's newest file. Those that M(openisb.backup.run_journal) has moved aside are read, too.
      - Without any file the journal is empty.
    type: path
    required: true
  run_id:
    description: The run whose records to return.
    type: str
  events:
    description: The events whose records to return, of O(run_id) or, without it, of all runs.
    type: list
    elements: str
  savesets:
    description: Ids of the savesets to look up in the journal.
    type: list
    elements: str
  since:
    description:
      - The number (C(seq)) of the first record to return. It also limits O(run_id) and O(events).
    type: int
  tail:
    description:
      - Whether to read only the records from O(since) on, from the end of the journal, at a cost that depends on them
        alone. Earlier records are neither read nor verified. RV(open_runs) and RV(savesets) are then empty, and
        RV(count) is what the newest record says.
    type: bool
    default: false
seealso:
  - module: openisb.backup.run_journal
  - module: openisb.backup.journal_head_info
"""

EXAMPLES = r"""
- name: List the open runs
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
  description: The requested records, oldest first; none without O(run_id), O(events) and O(since).
  returned: success
  type: list
  elements: dict
savesets:
  description:
    - Those of O(savesets) that the journal knows, because a run made them or they were adopted.
    - Each with id, volume, sequence and time.
  returned: success
  type: list
  elements: dict
count:
  description: How many records there are.
  returned: success
  type: int
chain_head:
  description: The hash of the newest record; 64 zeros if there is none.
  returned: success
  type: str
problems:
  description: Where the chain is broken; empty if it is intact.
  returned: success
  type: list
  elements: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import (
    Chain,
    Journal,
    JournalError,
    OpenRuns,
)
from ansible_collections.openisb.backup.plugins.module_utils.journal.known import Known


def wanted(number, record, params):
    """Whether a record was requested. Its place, not what it says, decides whether it is before ``since``."""
    run_id, events, since = (params[name] for name in ("run_id", "events", "since"))
    if run_id is None and events is None and since is None:
        return False
    return (
        number >= (since or 1) and run_id in (None, record["run_id"]) and (events is None or record["event"] in events)
    )


def read_tail(journal, params):
    """The result for the records from ``since`` on."""
    records = journal.tail(params["since"])
    first = records[0]["seq"] if records else 1
    return told(first, records, params, [Chain(first)])


def read_whole(journal, params):
    """The result for all records."""
    runs, known = OpenRuns(), Known(params["savesets"] or [])
    found = told(1, journal.iterate(), params, [Chain(), runs, known])
    return dict(found, open_runs=runs.told(), savesets=known.told())


def told(first, records, params, readers):
    """The result for ``records``, numbered from ``first`` on, after putting each into all ``readers``."""
    found = []
    for number, record in enumerate(records, first):
        for reader in readers:
            reader.put(record)
        if wanted(number, record, params):
            found.append(record)
    chain = readers[0]
    return {
        "open_runs": [],
        "savesets": [],
        "records": found,
        "count": chain.count,
        "chain_head": chain.head,
        "problems": chain.problems,
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "run_id": {"type": "str"},
            "events": {"type": "list", "elements": "str"},
            "savesets": {"type": "list", "elements": "str"},
            "since": {"type": "int"},
            "tail": {"type": "bool", "default": False},
        },
        required_if=[("tail", True, ("since",))],
        supports_check_mode=True,
    )
    read = read_tail if module.params["tail"] else read_whole
    try:
        found = read(Journal(module.params["path"]), module.params)
    except (JournalError, OSError) as error:
        module.fail_json(msg=f"The journal cannot be read: {error}")
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
