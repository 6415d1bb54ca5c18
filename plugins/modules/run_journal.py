#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: run_journal
short_description: Write a record to the run journal
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Appends a record, or several of one event, to the write-ahead, hash-chained journal on the listener, and flushes
    them to disk.
  - The cost of this does not depend on the length of the journal. Only opening a run reads all of it, to search for the
    run's id.
  - A journal whose file has become larger than O(max_bytes) goes on in a new one, and keeps the old one beside it.
  - Only one run can be open at a time, unless O(exclusive=false). Opening a second one fails and names the open run.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  path:
    description: The journal's newest file. Its folder is created if it is missing.
    type: path
    required: true
  run_id:
    description: The run that the record belongs to.
    type: str
    required: true
  event:
    description:
      - What is about to happen or has happened.
      - V(opened) opens the run and V(closed) closes it. Any other event needs an open run, except V(adopted), which
        adds savesets to the journal that none of its runs made, and V(refused), which is all there is of a run that was
        refused before it was opened.
    type: str
    required: true
  data:
    description: The data of the event.
    type: dict
    default: {}
  batch:
    description: Instead of O(data), the data of several records of this event. Nothing else is written between them.
    type: list
    elements: dict
  exclusive:
    description: Whether only one run may be open at a time. Drills may overlap, runs may not.
    type: bool
    default: true
  max_bytes:
    description:
      - The size above which the file is moved aside before the record is written.
      - It is then named O(path), a dot and the number of its last record in 12 digits. All that reads the journal reads
        these files, too.
    type: int
    default: 16777216
seealso:
  - module: openisb.backup.run_journal_info
"""

EXAMPLES = r"""
- name: Open the run
  openisb.backup.run_journal:
    path: /var/lib/openisb/journal/runs.jsonl
    run_id: isb-20261123T021500Z-4f1c2a
    event: opened
    data:
      servers: [fs1, fs2, fs3]
"""

RETURN = r"""
records:
  description: The records as written; in check mode what would be written, without their hashes.
  returned: success
  type: list
  elements: dict
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import (
    MAX_BYTES,
    Journal,
    JournalError,
    check_run_id,
)


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "run_id": {"type": "str", "required": True},
            "event": {"type": "str", "required": True},
            "data": {"type": "dict", "default": {}},
            "batch": {"type": "list", "elements": "dict"},
            "exclusive": {"type": "bool", "default": True},
            "max_bytes": {"type": "int", "default": MAX_BYTES},
        },
        supports_check_mode=True,
    )
    run_id, event, batch = (module.params[key] for key in ("run_id", "event", "batch"))
    batch = [module.params["data"]] if batch is None else batch
    wanted = [{"run_id": run_id, "event": event, "data": data} for data in batch]
    try:
        check_run_id(run_id)
        journal = Journal(*(module.params[name] for name in ("path", "exclusive", "max_bytes")))
        written = wanted if module.check_mode else journal.append_all(run_id, event, batch)
    except (JournalError, OSError) as error:
        module.fail_json(msg=f"The journal record '{event}' was not written: {error}")
    module.exit_json(changed=bool(wanted), records=written, diff={"before": {}, "after": {"records": wanted}})


if __name__ == "__main__":
    main()
