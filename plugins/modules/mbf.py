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
  - Runs MBF, the vendor's command line towards the MEDITECH Backup listener, from its own folder and bounded in time.
  - A quiesce that is no success is followed by unquiesces until one succeeds or O(timeout) ends, and fails.
  - Runs of C(isb.yml) quiesce with the driver C(mbf) of M(openisb.backup.quiesce), which also unquiesces when the
    controller or the network dies. This module has no such dead-man. Use it for a census, and to try things out.
  - What is known of MBF and what is not is in the collection's C(docs/meditech.md).
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  command:
    description: What to do. V(census) changes nothing.
    type: str
    choices: [census, quiesce, unquiesce]
    required: true
  executable:
    description: MBF, or the site's own wrapper of it.
    type: path
    required: true
  intermediaries:
    description: The listeners (C(I=)), each C(host) or C(host:port).
    type: list
    elements: str
    required: true
  user:
    description: Who logs in there (C(U=)). Needed unless O(password_by=session_file).
    type: str
  password:
    description: The password. Better is O(password_file).
    type: str
  password_file:
    description: A file on the machine that has the password in its first line.
    type: path
  password_by:
    description:
      - How MBF gets the password. V(argument) is C(P=), which other users of the machine can read unless C(/proc) hides
        it; V(stdin) is for a wrapper of the site that reads it from its standard input; with V(session_file) MBF finds
        it by itself, in O(session_file).
    type: str
    choices: [argument, stdin, session_file]
    default: argument
  on_exposed_password:
    description: What to do where other users of the machine could read the password.
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
    description: What MBF is told as its own timeout (C(T=)). Nothing with V(0).
    type: int
    default: 90
  timeout:
    description: Seconds after which MBF is ended, each time that it is run; and for all unquiesces after a failure.
    type: float
    default: 120
  proceed:
    description:
      - Exit codes that count as success. V(0) always does; V(1), V(10) and V(11) may be added. They make
        RV(degraded) not empty.
    type: list
    elements: int
    default: [0]
  environment:
    description: More environment variables for MBF.
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
  description: What MBF printed, for a file that the inventory plugin P(openisb.backup.mbf_census#inventory) reads.
  returned: with O(command=census)
  type: str
servers:
  description: By server what it answered.
  returned: with O(command=quiesce) and O(command=unquiesce)
  type: dict
degraded:
  description: What is less than whole though O(proceed) lets it pass; empty where nothing is.
  returned: with O(command=quiesce) and O(command=unquiesce)
  type: str
without:
  description: Servers that are not quiesced though O(proceed) lets that pass.
  returned: with O(command=quiesce) and O(command=unquiesce)
  type: list
  elements: str
unquiesced:
  description: Whether, after a quiesce that failed, the servers were unquiesced.
  returned: when a quiesce failed
  type: bool
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils import confidential
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import QuiesceError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import exposure
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.client import Client
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.settings import (
    MODES,
    PASSWORD_BY,
    REFUSE,
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
    verdict = client.quiesce(wanted, module.params["timeout"])
    if not verdict.problem:
        leave(module, verdict, "quiesced")
    last = unquiesce_until_done(client, wanted, module.params["timeout"])
    now = f"it may still be quiesced: {last}" if last else "it was unquiesced again"
    module.fail_json(
        msg=f"The ring was not quiesced: {verdict.problem}. Now {now}",
        servers=verdict.statuses,
        unquiesced=not last,
    )


def unquiesce_until_done(client, wanted, seconds):
    """Empty once an unquiesce has succeeded; else, after so many seconds, why the last one did not."""
    end = time.monotonic() + seconds
    while True:
        problem = client.unquiesce(wanted, max(end - time.monotonic(), PAUSE)).problem
        if not problem or time.monotonic() + PAUSE >= end:
            return problem
        time.sleep(PAUSE)


def unquiesce(module, client):
    wanted = client.census(module.params["timeout"])[0].servers
    if module.check_mode:
        module.exit_json(changed=True, servers={}, degraded="", without=[], diff=diff("unquiesced"))
    verdict = client.unquiesce(wanted, module.params["timeout"])
    if verdict.problem:
        module.fail_json(msg=f"The ring may still be quiesced: {verdict.problem}", servers=verdict.statuses)
    leave(module, verdict, "unquiesced")


def diff(state):
    """MBF does not tell what was before."""
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
            "proceed": {"type": "list", "elements": "int", "default": [0]},
            "environment": {"type": "dict", "default": {}},
        },
        mutually_exclusive=[("password", "password_file")],
        supports_check_mode=True,
    )
    if module.params["timeout"] <= 0:
        module.fail_json(msg="'timeout' must be more than 0 seconds, not {:g}".format(module.params["timeout"]))
    try:
        settings = Settings(module.params)
        check_exposure(module, settings)
        COMMANDS[module.params["command"]](module, Client(settings))
    except (QuiesceError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
