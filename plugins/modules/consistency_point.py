#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: consistency_point
short_description: Freeze all servers, take the snapshots, and thaw all servers
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Freezes all O(servers) through the holders that M(openisb.backup.quiesce) has armed there, runs the commands in
    O(snapshots) on the storage hosts once all are frozen, and thaws all servers, whatever happened in between.
  - It is one task on one host, so that the freeze window is as short as possible and no server's failure can keep
    another one frozen. Connections are opened before the first server is asked to freeze.
  - Over Ansible's ssh plugin with ControlPersist, holders are reached through sockets that OpenSSH forwards, if the
    servers' sshd allows it (C(AllowStreamLocalForwarding), its default) and the login user is root. This shortens the
    freeze window most with many servers. Otherwise a small program on each server asks its holder.
  - Does not judge its results or fail because of them. C(consistency_verdict) of P(openisb.backup.facts#filter) gives
    the verdict.
extends_documentation_fragment:
  - openisb.backup.attributes.holders
options:
  run_id:
    description: The run.
    type: str
    required: true
  servers:
    description: Names of the servers in the inventory.
    type: list
    elements: str
    required: true
  leaders:
    description:
      - Names of further hosts whose holders each quiesce many servers, such as those of a MEDITECH ring. They freeze
        before O(servers) and thaw after them. O(servers) may then be empty.
    type: list
    elements: str
    default: []
  snapshots:
    description:
      - For each storage host, the command that takes its snapshot. Its first and last line of output must be the time
        before and after the call, in seconds since the epoch.
    type: dict
    required: true
  needs_all:
    description: Whether to take no snapshot unless every server is frozen.
    type: bool
    default: true
  timeout:
    description: Seconds after which a server that does not answer counts as lost.
    type: float
    default: 30
  storage_timeout:
    description: Seconds after which a storage host that does not answer counts as lost.
    type: float
    default: 9
  clock_limit:
    description: Seconds by which a host's clock may differ from that of the listener, the host that the task runs for.
    type: float
    default: 1
  on_clock_skew:
    description:
      - What to do if a clock differs by more. V(abort) freezes nothing.
      - No verdict depends on clocks. The proof is the order of freeze, snapshot and thaw within this one task.
    type: str
    choices: [warn, abort]
    default: warn
seealso:
  - module: openisb.backup.hold
  - module: openisb.backup.quiesce
"""

EXAMPLES = r"""
- name: Take the consistency point
  openisb.backup.consistency_point:
    run_id: "{{ run_id }}"
    servers: "{{ groups['file_servers'] }}"
    snapshots:
      storage1: date +%s.%N && btrfs subvolume snapshot -r /srv/pool/luns /srv/pool/snapshots/x && date +%s.%N
"""

RETURN = r"""
freeze:
  description: The holders' answers to the freeze, by server, in C(servers), as M(openisb.backup.hold) returns them.
  returned: always
  type: dict
snapshots:
  description: For each storage host that was asked, C(storage_host) and C(answer) (ok, stdout, error).
  returned: always
  type: list
  elements: dict
thaw:
  description: The holders' answers to the thaw, in the same form.
  returned: always
  type: dict
problems:
  description: Why nothing was frozen, such as a connection that could not be opened; empty otherwise.
  returned: always
  type: list
  elements: str
forwarded:
  description:
    - Servers whose holders were reached through a socket that OpenSSH forwards, with no process started in the window.
  returned: when something was frozen
  type: list
  elements: str
clocks:
  description:
    - For each server and storage host, how many seconds its clock is ahead of the listener's (C(ahead)), and the
      uncertainty that the round trips add to it, also in seconds (C(bound)).
  returned: when not in check mode
  type: dict
seconds:
  description: How long freeze, snapshot and thaw took, by the controller's clock.
  returned: when something was frozen
  type: dict
"""
