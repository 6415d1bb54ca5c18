#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: standby
short_description: Record which saveset a restored disk holds, and whether it still does
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - A standby is a disk or file on a DR host that is brought up to date after each run. Its content is recorded along
    with what the kernel reports about it, which changes once anybody writes to it. Until then,
    M(openisb.backup.block_restore) writes only what differs between two savesets, and reads only a sample of the
    standby.
  - Record the target as incomplete (V(partial)) before anything is written to it, and record what it holds (V(present))
    when everything is written. An interrupted restore leaves it incomplete, and the next one compares everything.
    M(openisb.backup.nbd_export) and M(openisb.backup.block_restore) do the first while they hold the target.
  - The record also vouches for the target, so that M(openisb.backup.restore_target) allows it to be overwritten. A
    standby is recognised by its own identity; what was only restored to, as long as nobody has written to it.
  - After a restart of its host, the content of a block device is no longer known. Writes of other hosts to a shared LUN
    are not detected; no other host may write to a standby.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  path:
    description: The block device or file.
    type: path
    required: true
  volume:
    description: The volume that it holds, as C(server/name). Required with O(state=present) and O(state=partial).
    type: str
  run_id:
    description: The run of the saveset that it holds. Required with O(state=present).
    type: str
  saveset:
    description: The id of the saveset that it holds. Required with O(state=present).
    type: str
  purpose:
    description:
      - Whether it is a standby, or was only restored to and may be used for anything from now on. A standby stays one
        until something that is not one is restored to it as a whole.
    type: str
    choices: [standby, restored]
    default: standby
  state_dir:
    description: Folder for state that must survive a restart of the host.
    type: path
    default: /var/lib/openisb
  state:
    description:
      - With V(present), what it holds is recorded; with V(partial), that it is being written; with V(absent), nothing.
    type: str
    choices: [present, partial, absent]
    default: present
seealso:
  - module: openisb.backup.block_restore
"""

EXAMPLES = r"""
- name: Record that it is being written, and see what it held
  openisb.backup.standby:
    path: /dev/disk/by-id/wwn-0x600140500000000000000000000000a1
    volume: fs1/m
    state: partial
  register: held

- name: Record what it holds now
  openisb.backup.standby:
    path: /dev/disk/by-id/wwn-0x600140500000000000000000000000a1
    volume: fs1/m
    run_id: isb-20261123T021500Z-4f1c2a
    saveset: 5f0c6a1be4c84bd5a1c1d1d2f3b4c5d6
"""

RETURN = r"""
held:
  description: What the standby was known to hold before.
  returned: success
  type: dict
  contains:
    volume:
      description: The volume; empty if it is not known.
      type: str
      returned: always
    run_id:
      description: The run; empty if it is not known.
      type: str
      returned: always
    saveset:
      description: The saveset's id; empty if it is not known.
      type: str
      returned: always
    reason:
      description: Why it is not known; empty if it is.
      type: str
      returned: always
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.luns.standbys import RESTORED, STANDBY, Standby

CONTENT = ("volume", "run_id", "saveset")


def settle(standby, params, content):
    """Write or delete the record."""
    if params["state"] == "absent":
        standby.forget()
    elif params["state"] == "partial":
        standby.begin(params["volume"], params["purpose"])
    else:
        standby.remember(**content, purpose=params["purpose"])


def main():
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "volume": {"type": "str"},
            "run_id": {"type": "str"},
            "saveset": {"type": "str"},
            "state_dir": {"type": "path", "default": "/var/lib/openisb"},
            "purpose": {"type": "str", "choices": [STANDBY, RESTORED], "default": STANDBY},
            "state": {"type": "str", "choices": ["present", "partial", "absent"], "default": "present"},
        },
        required_if=[("state", "present", CONTENT), ("state", "partial", ("volume",))],
        supports_check_mode=True,
    )
    params = module.params
    standby = Standby(params["state_dir"], params["path"])
    held = standby.held()
    before = {key: held[key] for key in CONTENT}
    after = {key: params[key] if params["state"] == "present" else "" for key in CONTENT}
    try:
        if not module.check_mode:
            settle(standby, params, after)
    except OSError as error:
        module.fail_json(msg=f"What the standby {standby.path} holds cannot be recorded: {error}")
    module.exit_json(changed=before != after, held=held, diff={"before": before, "after": after})


if __name__ == "__main__":
    main()
