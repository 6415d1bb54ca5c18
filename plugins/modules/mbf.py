#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: mbf
short_description: Run MEDITECH's MBF for a census, a quiesce or an unquiesce
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Runs MBF, the vendor's command line for MEDITECH's listener, in its own folder and with a time limit.
  - A quiesce that does not succeed is followed by unquiesces until one succeeds or O(timeout) ends, and the module
    fails. If MEDITECH's listener may still quiesce after that, the message says until when, and to unquiesce once more
    then.
  - Runs of C(isb.yml) quiesce with the driver C(mbf) of M(openisb.backup.quiesce), which also unquiesces if the
    controller or the network fails. This module has no such dead man's switch. Use it for a census, and for trials.
  - What is known about MBF and what is not is in the collection's C(docs/meditech.md).
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  command:
    description: What to do. V(census) changes nothing.
    type: str
    choices: [census, quiesce, unquiesce]
    required: true
  executable:
    description: MBF, or the site's own wrapper around it.
    type: path
    required: true
  intermediaries:
    description: MEDITECH's listeners (C(I=)), each C(host) or C(host:port).
    type: list
    elements: str
    required: true
  user:
    description: The user to log in as (C(U=)). Required unless O(password_by=session_file).
    type: str
  password:
    description: The password. Prefer O(password_file).
    type: str
  password_file:
    description: A file on the host with the password in its first line.
    type: path
  password_by:
    description:
      - How MBF gets the password. V(argument) is C(P=), which other users of the host can read unless C(/proc) hides
        it; V(stdin) is for a wrapper of the site that reads it from its standard input; with V(session_file), MBF finds
        it in O(session_file).
    type: str
    choices: [argument, stdin, session_file]
    default: argument
  on_exposed_password:
    description: What to do if other users of the host could read the password.
    type: str
    choices: [refuse, warn]
    default: refuse
  session_file:
    description: MBF's own session file (C(F=)).
    type: path
  mode:
    description: How hard to try (C(M=)).
    type: str
    choices: [force, quiet]
  seconds:
    description: The timeout passed to MBF itself (C(T=)). V(0) passes none.
    type: int
    default: 90
  timeout:
    description:
      - Seconds after which MBF is killed, each time that it runs; also the limit for all unquiesces after a failure.
      - A census and a quiesce are killed 30 s after O(seconds) at the latest.
    type: float
    default: 120
  unquiesce_timeout:
    description: Seconds after which MBF is killed when it runs to unquiesce. The unquiesce then counts as not done.
    type: float
    default: 60
  proceed:
    description:
      - Exit codes of a quiesce that count as success. V(0) always does; V(1), V(10) and V(11) may be added. With these,
        RV(degraded) is not empty.
    type: list
    elements: int
    default: [0]
  released:
    description:
      - Exit codes of an unquiesce that count as success. V(0) always does; V(1), V(10) and V(11) may be left out. With
        V(1) and V(11), some servers, but not all, may be missing in the answer; RV(without) names them.
    type: list
    elements: int
    default: [0, 1, 10, 11]
  environment:
    description: Additional environment variables for MBF.
    type: dict
    default: {}
seealso:
  - module: openisb.backup.quiesce
  - plugin: openisb.backup.mbf_census
    plugin_type: inventory
"""

EXAMPLES = r"""
- name: Which servers and drives are there?
  openisb.backup.mbf:
    command: census
    executable: /opt/mbf/mbf
    intermediaries: ["listener.example.org:2987"]
    user: backup
    password_file: /etc/openisb/mbf-password
  register: census
"""

RETURN = r"""
drives:
  description: The drives of the census. C(server), C(name), C(serial) and C(wwn) (hex digits; C(wwn) may be empty).
  returned: with O(command=census)
  type: list
  elements: dict
output:
  description:
    - The output of MBF, which can be saved to a file for the inventory plugin P(openisb.backup.mbf_census#inventory).
  returned: with O(command=census)
  type: str
servers:
  description: What each server answered, by its name.
  returned: with O(command=quiesce) and O(command=unquiesce)
  type: dict
degraded:
  description: What is incomplete although O(proceed) or O(released) accepts it; empty if nothing is.
  returned: with O(command=quiesce) and O(command=unquiesce)
  type: str
without:
  description: Servers that did not take part although O(proceed) or O(released) accepts that.
  returned: with O(command=quiesce) and O(command=unquiesce)
  type: list
  elements: str
unquiesced:
  description: Whether the servers were unquiesced after the quiesce that failed.
  returned: when a quiesce failed
  type: bool
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import HostError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import exposure
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.client import Client
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.codes import RELEASED
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.settings import (
    LATE,
    MODES,
    PASSWORD_BY,
    REFUSE,
    UNQUIESCE_TIMEOUT,
    WARN,
    Settings,
)

PAUSE = 2.0
"""Seconds between two unquiesces."""


def check_exposure(module, settings):
    found = exposure.problems(settings)
    if found and module.params["on_exposed_password"] == REFUSE:
        module.fail_json(msg="MBF was not run: {}".format("; ".join(found)))
    for text in found:
        module.warn(text)


def census(module, client):
    found, output = client.census(module.params["timeout"])
    drives = [drive.public() for drive in found.drives]
    module.exit_json(changed=False, drives=drives, servers=found.servers, output=output)


def quiesce(module, client):
    wanted = client.census(module.params["timeout"])[0].servers
    if module.check_mode:
        module.exit_json(changed=True, servers={}, degraded="", without=[], diff=diff("quiesced"))
    begun = time.monotonic()
    verdict = client.quiesce(wanted, module.params["timeout"])
    if not verdict.problem:
        leave(module, verdict, "quiesced")
    last = unquiesce_until_done(module, client, wanted)
    now = f"it may still be quiesced: {last}" if last else "it was unquiesced again"
    module.fail_json(
        msg=f"The ring was not quiesced: {verdict.problem}. Now {now}{late(module, verdict, begun)}",
        servers=verdict.statuses,
        unquiesced=not last,
    )


def late(module, verdict, begun):
    """What to add if MBF gave no answer that proves that MEDITECH's listener has given up."""
    left = begun + max(module.params["timeout"], module.params["seconds"] + LATE) - time.monotonic()
    if verdict.sure or left <= 0:
        return ""
    return f". MEDITECH's listener may still quiesce: unquiesce once more (command=unquiesce) in {left:.0f} s"


def unquiesce_until_done(module, client, wanted):
    """Empty once an unquiesce has succeeded; otherwise, after ``timeout`` seconds, why the last one did not."""
    end = time.monotonic() + module.params["timeout"]
    while True:
        patience = min(max(end - time.monotonic(), PAUSE), module.params["unquiesce_timeout"])
        problem = client.unquiesce(wanted, patience).problem
        if not problem or time.monotonic() + PAUSE >= end:
            return problem
        time.sleep(PAUSE)


def unquiesce(module, client):
    wanted = servers_to_unquiesce(module, client)
    if module.check_mode:
        module.exit_json(changed=True, servers={}, degraded="", without=[], diff=diff("unquiesced"))
    verdict = client.unquiesce(wanted, module.params["unquiesce_timeout"])
    if verdict.problem:
        module.fail_json(msg=f"The ring may still be quiesced: {verdict.problem}", servers=verdict.statuses)
    leave(module, verdict, "unquiesced")


def servers_to_unquiesce(module, client):
    """Those of the census. Without a census, MBF is told to unquiesce anyway, and its exit code counts."""
    try:
        return client.census(module.params["timeout"])[0].servers
    except HostError as error:
        module.warn(f"It is not known which servers must answer: {error}")
        return []


def diff(state):
    """MBF does not report the state before."""
    return {"before": {"state": "unknown"}, "after": {"state": state}}


def leave(module, verdict, state):
    module.exit_json(
        changed=True,
        servers=verdict.statuses,
        degraded=verdict.degraded,
        without=list(verdict.without),
        diff=diff(state),
    )


COMMANDS = {"census": census, "quiesce": quiesce, "unquiesce": unquiesce}


def main():
    module = AnsibleModule(
        argument_spec={
            "command": {"type": "str", "choices": list(COMMANDS), "required": True},
            "executable": {"type": "path", "required": True},
            "intermediaries": {"type": "list", "elements": "str", "required": True},
            "user": {"type": "str"},
            "password": confidential.option("password"),
            "password_file": {"type": "path", "no_log": False},
            "password_by": {"type": "str", "choices": list(PASSWORD_BY), "default": "argument", "no_log": False},
            "on_exposed_password": {"type": "str", "choices": [REFUSE, WARN], "default": REFUSE, "no_log": False},
            "session_file": {"type": "path"},
            "mode": {"type": "str", "choices": list(filter(None, MODES))},
            "seconds": {"type": "int", "default": 90},
            "timeout": {"type": "float", "default": 120},
            "unquiesce_timeout": {"type": "float", "default": UNQUIESCE_TIMEOUT},
            "proceed": {"type": "list", "elements": "int", "default": [0]},
            "released": {"type": "list", "elements": "int", "default": list(RELEASED)},
            "environment": {"type": "dict", "default": {}},
        },
        mutually_exclusive=[("password", "password_file")],
        supports_check_mode=True,
    )
    for name in ("timeout", "unquiesce_timeout"):
        if module.params[name] <= 0:
            module.fail_json(msg=f"'{name}' must be more than 0 seconds, not {module.params[name]:g}")
    try:
        settings = Settings(module.params)
        check_exposure(module, settings)
        COMMANDS[module.params["command"]](module, Client(settings))
    except (HostError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
