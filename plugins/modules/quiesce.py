#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: quiesce
short_description: Quiesce a server, with a dead man's switch that thaws it whatever happens
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Starts a holder process on the server before anything is frozen. The holder freezes and thaws with the drivers in
    O(drivers). It thaws automatically when O(hold_ttl) ends, when it is told to end, and, through a partner process and
    a guard, when it is killed.
  - Arm the holders on all servers at once with this module, then freeze and thaw them with M(openisb.backup.hold),
    which reaches many servers in a fraction of a second.
  - A thaw is always safe to repeat.
extends_documentation_fragment:
  - openisb.backup.attributes
options:
  run_id:
    description: The run that the hold belongs to. A hold freezes once, so each run needs its own.
    type: str
    required: true
  state:
    description:
      - With V(armed), every driver is tested and a holder is running, ready to freeze. A second run is refused as long
        as another one may have something frozen on this server.
      - With V(frozen), the run's holder has frozen.
      - With V(thawed), the run has nothing frozen any more. If its holder, partner and guard are gone, what they left
        frozen is thawed from their record in O(run_dir).
      - With V(absent), nothing is frozen, and the holder and its record are gone too.
    type: str
    choices: [armed, frozen, thawed, absent]
    default: armed
  drivers:
    description:
      - How to quiesce this server, in the order in which to freeze. The thaw goes in reverse order.
      - Each has a C(name) and the options of that driver. The drivers are V(command), V(filesystem), V(gtm), V(iris),
        V(mariadb), V(mbf) and V(postgresql); see the collection's C(docs/quiesce.md).
      - Do not put passwords here. Drivers of databases take them from files of the databases' own clients.
      - Required with O(state=armed).
    type: list
    elements: dict
  run_dir:
    description: Folder for volatile state, on a filesystem that is not frozen.
    type: path
    default: /run/openisb
  arm_ttl:
    description: Seconds after which a holder that was never told to freeze ends.
    type: float
    default: 3600
  hold_ttl:
    description:
      - Seconds, from the start of the freeze, after which the holder thaws automatically. This is the freeze budget.
    type: float
    default: 30
  timeout:
    description: Seconds to wait for the holder's answer to a freeze or a thaw.
    type: float
    default: 60
seealso:
  - module: openisb.backup.quiesce_info
  - module: openisb.backup.hold
"""

EXAMPLES = r"""
- name: Arm a holder
  openisb.backup.quiesce:
    run_id: isb-20261123T021500Z-4f1c2a
    hold_ttl: 9
    drivers:
      - name: gtm
        gtm_dist: /usr/lib/x86_64-linux-gnu/fis-gtm/V7.0-005_x86_64
        gbldir: /srv/m/mumps.gld
      - name: filesystem
        mounts: [/srv/m, /srv/files]

- name: Test whether a PostgreSQL cluster and its filesystem could be frozen, and change nothing
  openisb.backup.quiesce:
    run_id: isb-20261123T021500Z-4f1c2a
    drivers:
      - name: postgresql
      - name: filesystem
        mounts: [/srv/postgresql]
  check_mode: true

- name: Thaw, whatever became of the run
  openisb.backup.quiesce:
    run_id: isb-20261123T021500Z-4f1c2a
    state: thawed
"""

RETURN = r"""
hold:
  description: The hold as its holder reports it. If there is none, only C(run_id) and C(state) (V(absent)).
  returned: always
  type: dict
  contains:
    run_id:
      description: The run that the hold belongs to.
      type: str
    state:
      description:
        - V(armed), V(freezing), V(frozen), V(thawing), V(thawed), V(failed) or V(absent).
        - V(failed) means that it was never completely frozen, and that nothing is frozen any more.
      type: str
    hold_unbroken:
      description: Whether everything was frozen, and stayed frozen until now or until it was thawed by command.
      type: bool
    reason:
      description:
        - What ended it. V(command), V(ttl), V(arm_ttl), V(signal), V(freeze_failed), V(partner), V(guard), V(recovery).
      type: str
    error:
      description: What went wrong; null if nothing did.
      type: str
    armed:
      description: When the holder was armed, in seconds since the epoch by the server's clock, like all times here.
      type: float
    freeze_started:
      description: When the freeze began; null if it did not.
      type: float
    frozen:
      description: When everything was frozen; null if it was not.
      type: float
    thaw_started:
      description: When the thaw began; null if it did not.
      type: float
    thawed:
      description: When everything was thawed; null if it is not.
      type: float
    window_ms:
      description: Milliseconds from the start of the freeze to the end of the thaw; null until then.
      type: float
    arm_ttl:
      description: The holder's own O(arm_ttl).
      type: float
    hold_ttl:
      description: The holder's own O(hold_ttl).
      type: float
    drivers:
      description:
        - How long each driver took, as C(name), C(freeze_ms) and C(thaw_ms), which are null until it has frozen or
          thawed.
        - Once it has thawed, driver C(postgresql) adds what PostgreSQL returned, as C(backup_label) and, if there are
          tablespaces, C(tablespace_map).
      type: list
      elements: dict
    degraded:
      description: What is incomplete about the freeze although the site accepts it. Texts, empty if nothing is.
      type: list
      elements: str
    without:
      description: Names of servers that a driver for many servers, such as C(mbf), could not freeze.
      type: list
      elements: str
    pid:
      description: The holder's process id.
      type: int
    memory_locked:
      description: Whether the holder's memory is locked.
      type: bool
    oom_protected:
      description:
        - Whether the kernel kills other processes first when memory runs out (C(oom_score_adj) of -1000).
        - Some containers do not allow it.
      type: bool
    partner_alive:
      description: Whether the holder's partner process runs; null if the partner has become the holder.
      type: bool
    guard:
      description:
        - The process that thaws if both of them are killed.
        - Null once nothing is frozen any more, because it has ended, and if it has become the holder.
      type: dict
      contains:
        alive:
          description: Whether it runs.
          type: bool
        place:
          description:
            - The control group that it is in. C(unit) and its name if there is systemd, C(the root cgroup), or C(the
              holder's own cgroup) if this server allows it no other.
            - In the last case it dies when that cgroup is killed as a whole.
          type: str
        renamed:
          description: Whether C(ps) shows it by its own name.
          type: bool
        memory_locked:
          description: Whether its memory is locked.
          type: bool
        oom_protected:
          description: Whether the kernel kills other processes first.
          type: bool
checks:
  description: What the test of each driver found before anything was frozen; also in check mode.
  returned: with O(state=armed)
  type: list
  elements: dict
  contains:
    driver:
      description: The driver's name.
      type: str
    ok:
      description: Whether a freeze would work. The module fails if any is V(false).
      type: bool
    message:
      description: What was found.
      type: str
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import HostError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import manage, records
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.hold import Limits


def absent(run_id):
    return {"run_id": run_id, "state": manage.ABSENT}


def current(params):
    found = manage.find(params["run_dir"], params["run_id"])
    return (found, found.public()) if found else (None, absent(params["run_id"]))


def ensure_armed(params, check_mode):
    limits = Limits(arm_ttl=params["arm_ttl"], hold_ttl=params["hold_ttl"])
    arming = manage.Arming(params["run_dir"], params["run_id"], params["drivers"], limits)
    if check_mode:
        changed = arming.plan()
        return changed, dict(current(params)[1], state="armed", checks=arming.checks)
    with records.locked(params["run_dir"]):
        changed = arming.plan()
        hold = arming.carry_out() if changed else current(params)[1]
    return changed, dict(hold, checks=arming.checks)


def ensure_frozen(params, check_mode):
    found, before = current(params)
    if before["state"] == "frozen":
        return False, before
    if check_mode:
        if not found or before["state"] != "armed":
            raise HostError(f"run {params['run_id']} is {before['state']} here, so it cannot freeze: arm it first")
        return True, dict(before, state="frozen")
    return True, manage.freeze(params["run_dir"], params["run_id"], params["timeout"])


def ensure_thawed(params, check_mode):
    found, before = current(params)
    if not found or not (found.live or found.leftover):
        return False, before
    if check_mode:
        return True, dict(before, state="thawed")
    with records.locked(params["run_dir"]):
        return True, manage.thaw(params["run_dir"], found, params["timeout"])


def ensure_absent(params, check_mode):
    found, before = current(params)
    if not found:
        return False, before
    if check_mode:
        return True, absent(params["run_id"])
    with records.locked(params["run_dir"]):
        answer = manage.end(params["run_dir"], found, params["timeout"])
    return True, dict(answer, state=manage.ABSENT) if answer["ok"] else answer


ENSURE = {"armed": ensure_armed, "frozen": ensure_frozen, "thawed": ensure_thawed, "absent": ensure_absent}


def check_times(module):
    for name in ("arm_ttl", "hold_ttl", "timeout"):
        if module.params[name] <= 0:
            module.fail_json(msg=f"'{name}' must be more than 0 seconds, not {module.params[name]:g}")


def main():
    module = AnsibleModule(
        argument_spec={
            "run_id": {"type": "str", "required": True},
            "state": {"type": "str", "choices": list(ENSURE), "default": "armed"},
            "drivers": {"type": "list", "elements": "dict"},
            "run_dir": {"type": "path", "default": "/run/openisb"},
            "arm_ttl": {"type": "float", "default": 3600},
            "hold_ttl": {"type": "float", "default": 30},
            "timeout": {"type": "float", "default": 60},
        },
        required_if=[("state", "armed", ("drivers",))],
        supports_check_mode=True,
    )
    check_times(module)
    params = module.params
    try:
        before = current(params)[1]
        changed, hold = ENSURE[params["state"]](params, module.check_mode)
    except (HostError, OSError) as error:
        module.fail_json(msg=f"Run {params['run_id']} cannot be {params['state']}: {error}")
    ok, checks = hold.pop("ok", True), hold.pop("checks", None)
    result = {"hold": hold, "diff": {"before": {"state": before["state"]}, "after": {"state": hold["state"]}}}
    if checks is not None:
        result["checks"] = checks
    if not ok:
        module.fail_json(msg=f"Run {params['run_id']} is not {params['state']}: {hold['error']}", **result)
    module.exit_json(changed=changed, **result)


if __name__ == "__main__":
    main()
