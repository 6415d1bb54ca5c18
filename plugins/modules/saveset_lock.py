#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_lock
short_description: Test whether hosts that share a repository see each other's locks
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - On one host, has a process hold a file of the repository as a backup holds its lease. On another host, tests whether
    that file is there, and whether it is seen to be locked.
  - Only the lock of its lease shows whether a backup is alive. So hosts that do not see each other's locks must not
    write to one repository.
  - Reads nothing of the repository, and needs no key. As long as the file is there, no prune removes anything.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  repository:
    description: The repository, a folder.
    type: path
    required: true
  name:
    description: The name of the file, 32 lowercase hex digits, which no other test uses.
    type: str
    required: true
  state:
    description:
      - V(held) creates the file and returns once it is locked. It stays locked for O(seconds), or until it is removed.
      - V(seen) tests whether it is there and locked.
      - V(absent) removes it, which also ends the process that holds it.
    type: str
    choices: [held, seen, absent]
    default: held
  seconds:
    description: For how many seconds the file stays locked at most. Then it is removed.
    type: float
    default: 120
seealso:
  - module: openisb.backup.saveset_repository
"""

EXAMPLES = r"""
- name: Hold a lock on one host
  openisb.backup.saveset_lock:
    repository: /srv/backup/repository
    name: 00112233445566778899aabbccddeeff
  delegate_to: backup1

- name: Look for it on another host
  openisb.backup.saveset_lock:
    repository: /srv/backup/repository
    name: 00112233445566778899aabbccddeeff
    state: seen
  register: seen
"""

RETURN = r"""
found:
  description: Whether the file is there.
  returned: success with O(state=seen)
  type: bool
locked:
  description: Whether it is there and locked by another process.
  returned: success with O(state=seen)
  type: bool
"""

import contextlib
import re
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import failing_as
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import daemon
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import HolderError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import NotFound
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.lease import FOLDER
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store

NAME = re.compile(r"[0-9a-f]{32}")
#: Seconds within which a file must be locked.
START = 30.0
#: Seconds from one look at whether it is still there to the next.
LOOK = 0.2


def hold(store, name, seconds):
    """Have a new process hold the file; returns once it does. Raises HolderError."""

    def main(ready):
        held = store.hold(name, b"")
        try:
            ready()
            end = time.monotonic() + seconds
            while held.is_kept() and time.monotonic() < end:
                time.sleep(LOOK)
        finally:
            held.release()

    daemon.start(main, START)


def change(module, store, name):
    """Have the file locked, or gone."""
    if module.params["state"] == "absent":
        with contextlib.suppress(NotFound):
            store.delete(name)
        return
    try:
        hold(store, name, module.params["seconds"])
    except HolderError as error:
        module.fail_json(msg=f"no file can be locked in {module.params['repository']}: {error}")


def look(store, name):
    """Whether the file is there, and whether it is locked."""
    found = name in store.list(FOLDER)
    return {"found": found, "locked": found and not store.abandoned(name)}


def main():
    module = AnsibleModule(
        argument_spec={
            "repository": {"type": "path", "required": True},
            "name": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["held", "seen", "absent"], "default": "held"},
            "seconds": {"type": "float", "default": 120.0},
        },
        supports_check_mode=True,
    )
    params = module.params
    if not NAME.fullmatch(params["name"]):
        module.fail_json(msg=f"name '{params['name']}' is not 32 lowercase hex digits: generate one for each test")
    with failing_as(module, f"Locks in the repository {params['repository']}"):
        store, name = open_store(params["repository"]), f"{FOLDER}/{params['name']}"
        seen = look(store, name)
        if params["state"] == "seen":
            module.exit_json(changed=False, **seen)
        if not module.check_mode:
            change(module, store, name)
    before, after = "held" if seen["locked"] else "absent", params["state"]
    module.exit_json(changed=before != after, diff={"before": {"state": before}, "after": {"state": after}})


if __name__ == "__main__":
    main()
