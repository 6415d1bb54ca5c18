#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: hold
short_description: Freeze and thaw many servers at once, through their holders
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reaches the holders that M(openisb.backup.quiesce) has armed on O(servers), all at once and from one task on one
    host, over each server's own connection as the inventory defines it.
  - Every server is always tried, and has a result by the end of O(timeout), whatever the other servers do.
  - The task fails if any server's answer is not what O(command) requires. The results of all servers are returned even
    then.
  - The folder of a server's holders is given by that server's variable C(openisb_run_dir), by default C(/run/openisb).
extends_documentation_fragment:
  - openisb.backup.attributes.holders
options:
  command:
    description:
      - V(connect) only opens every connection and starts Python there, so that this takes no time in the freeze window.
        It also returns how many seconds each clock is C(ahead) of the controller's, give or take C(bound).
      - V(freeze) freezes, V(thaw) thaws, V(status) only reports, and V(end) thaws and ends the holder.
    type: str
    choices: [freeze, thaw, status, end, connect]
    required: true
  servers:
    description: Names of the servers in the inventory.
    type: list
    elements: str
    required: true
  run_id:
    description: The run. Required with every O(command) except V(connect).
    type: str
  timeout:
    description: Seconds for the whole task.
    type: float
    default: 30
seealso:
  - module: openisb.backup.quiesce
"""

EXAMPLES = r"""
- name: Open every connection before the window
  openisb.backup.hold:
    command: connect
    servers: "{{ groups['file_servers'] }}"

- name: Freeze all servers
  openisb.backup.hold:
    command: freeze
    run_id: "{{ run_id }}"
    servers: "{{ groups['file_servers'] }}"
    timeout: 9
"""

RETURN = r"""
servers:
  description:
    - For each server, its holder's answer, as M(openisb.backup.quiesce) returns it in
      RV(openisb.backup.quiesce#module:hold), with C(ok), C(poke_ms) (the time to reach it, in milliseconds) and, if
      C(ok) is false, C(error).
    - If no holder answered, C(unreachable) says whether the server itself could not be reached.
  returned: always
  type: dict
unbroken:
  description: Whether the hold of this very run is unbroken on every server, or was until it was thawed by command.
  returned: always
  type: bool
window:
  description: The freeze window of all servers together, by their own clocks.
  returned: always
  type: dict
  contains:
    first_freeze:
      description: When the first server began to freeze, in seconds since the epoch. Null until all have.
      type: float
    last_frozen:
      description: When the last server was frozen. Null until all are.
      type: float
    first_thaw:
      description: When the first server began to thaw. Null until all have.
      type: float
    last_thaw:
      description: When the last server was thawed. Null until all are.
      type: float
    ms:
      description: Milliseconds from RV(window.first_freeze) to RV(window.last_thaw).
      type: float
    servers:
      description: Each server's own window in milliseconds.
      type: dict
"""
