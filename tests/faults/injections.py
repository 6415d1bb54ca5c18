# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The faults: how each one strikes a host, and how it is mended before the lab is asked to recover."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from .steps import ARMED, UNCHECKED, WINDOW, Step
from .stuck import MOUNT, StuckMount

if TYPE_CHECKING:
    from .controller import Controller
    from .machine import Machine

STORAGE, BACKUP = "storage1", "backup1"
REPOSITORY = "/var/lib/openisb/repository"
POOL = "/srv/pool"
BALLAST = f"{POOL}/ballast"
#: The pool gives the room back with its next transaction, which may be half a minute away; and what lies scattered over
#: block groups that were the ballast's is moved together, as those are lost for metadata until they are empty.
EMPTIED = f"rm -f {BALLAST} && sync -f {POOL} && btrfs --quiet balance start -dusage=5 {POOL}"
#: MiB that a full pool has left: the servers must still be able to write while the run is told that there is no room.
ROOM = 192
#: The greeting opens the connections; after it, holders are asked without a program on the host.
POKES = {"freeze": 1}
#: What the command line of every process of OpenISB on a server has in it, but for the guard's.
OURS = re.compile(r"python|ansible|openisb")


@dataclass
class Stage:
    """What a fault may act on."""

    machine: Machine
    controller: Controller
    step: Step
    stuck: StuckMount | None = None


Act = Callable[[Stage], None]


def nothing(_stage: Stage) -> None:
    """No more to do."""


@dataclass(frozen=True)
class Fault:
    """``before``: what is prepared before the run starts. ``strike``: what happens while it is held at the step.

    ``tasks``: by step, where the run is held instead of where the step itself says. ``ahead``: the steps in which all
    is prepared before, and which it may keep from being reached. ``mount``: one more filesystem of its server is frozen
    as well, the last one. It stays frozen until the fault is mended; what counts is how long the others are.
    """

    name: str
    what: str
    strike: Act = nothing
    mend: Act = nothing
    before: Act = nothing
    tasks: dict[str, str] = field(default_factory=dict)
    ahead: frozenset[str] = frozenset()
    mount: str = ""

    def holds(self, step: str) -> bool:
        """Whether the run is held at that step, to be struck there."""
        return self.strike is not nothing and step not in self.ahead


def _python(how: str) -> tuple[Act, Act]:
    """Modules on the step's host: outside of the window all from now on, inside of it the one poke of the step."""

    def before(stage: Stage) -> None:
        if stage.step.name in POKES:
            stage.machine.tell(stage.step.host, "pokes", f"poke.{POKES[stage.step.name]}.{how}")
        elif stage.step.name == "snapshot":
            stage.machine.tell(STORAGE, f"snapshot.{how}")

    def strike(stage: Stage) -> None:
        if stage.step.name not in WINDOW:
            stage.machine.tell(stage.step.host, f"python.{how}")

    return before, strike


def _driver(how: str) -> Act:
    return lambda stage: stage.machine.tell(stage.step.host, f"{stage.step.name}.{how}")


def _cut(host: str = "") -> Act:
    return lambda stage: stage.machine.cut(host or stage.step.host)


def _run(host: str, command: str) -> Act:
    def act(stage: Stage) -> None:
        stage.machine.run(host, command)

    return act


def _fill(stage: Stage) -> None:
    free = int(stage.machine.run(STORAGE, f"df --output=avail --block-size=1M {POOL} | tail -n 1"))
    stage.machine.run(STORAGE, f"fallocate --length {free - ROOM}M {BALLAST}")


def _holder(how: signal.Signals, *, partner: bool = False) -> Act:
    """Signal the holder of fs1, and its partner as well."""

    def strike(stage: Stage) -> None:
        # The partner first: else it could take over before its turn comes.
        for name in ("partner", "holder") if partner else ("holder",):
            pid = stage.machine.holder(stage.machine.servers[0], name)
            if pid:
                stage.machine.kill(pid, how)

    return strike


def _everything(stage: Stage) -> None:
    """As `pkill -KILL -f` with this pattern on fs1, or systemd-oomd where all of it is in one cgroup."""
    server = stage.machine.servers[0]
    found = [pid for pid, _name, command in stage.machine.processes(server) if OURS.search(command)]
    for pid in found:
        if pid != stage.machine.pid(server):
            stage.machine.kill(pid, signal.SIGKILL)


def _clock(stage: Stage) -> None:
    """An hour ahead, in the middle of the step."""
    stage.machine.set_clock(stage.machine.servers[0], "+3600")


def _add_mount(stage: Stage) -> None:
    stage.stuck = StuckMount(stage.machine)


def _stop_mount(stage: Stage) -> None:
    """With a write under way, which the freeze has to wait for."""
    assert stage.stuck is not None
    stage.stuck.storage.stop()
    if stage.step.name == "freeze":
        stage.stuck.write()


def _lose_mount(stage: Stage) -> None:
    assert stage.stuck is not None
    stage.stuck.storage.lose()


def _end_mount(stage: Stage) -> None:
    if stage.stuck is not None:
        stage.stuck.end()
        stage.stuck = None


def _mount(name: str, what: str, strike: Act) -> Fault:
    return Fault(name, what, before=_add_mount, strike=strike, mend=_end_mount, mount=MOUNT)


def _module(how: str, what: str) -> Fault:
    before, strike = _python(how)
    return Fault(f"module_{how}", what, before=before, strike=strike, ahead=frozenset(POKES))


FAULTS = {
    fault.name: fault
    for fault in (
        _module("fails", "a module on the step's host fails"),
        _module("hangs", "a module on the step's host never ends"),
        Fault("driver_fails", "the driver's freeze or thaw fails once", before=_driver("fails")),
        Fault("driver_hangs", "the driver's freeze or thaw hangs once", before=_driver("hangs")),
        _mount("mount_hangs", "the storage of one of fs1's filesystems stops answering", _stop_mount),
        _mount("mount_lost", "the storage of one of fs1's filesystems is lost", _lose_mount),
        Fault("host_unreachable", "the step's host is cut off the network", strike=_cut()),
        Fault(
            "sshd_killed",
            "sshd of the step's host is killed with its sessions",
            strike=lambda stage: stage.machine.end_sshd(stage.step.host),
            mend=lambda stage: stage.machine.start_sshd(),
        ),
        Fault("sigterm", "ansible-playbook gets SIGTERM", strike=lambda stage: stage.controller.signal(signal.SIGTERM)),
        Fault(
            "sigkill",
            "ansible-playbook and its workers get SIGKILL",
            strike=lambda stage: stage.controller.signal(signal.SIGKILL),
        ),
        Fault("cancel", "the run is cancelled through ansible-runner", strike=lambda stage: stage.controller.cancel()),
        Fault(
            "storage_unreachable",
            "the storage host is cut off the network",
            strike=_cut(STORAGE),
            tasks=UNCHECKED,
        ),
        Fault(
            "storage_full",
            f"the pool is filled up to {ROOM} MiB",
            strike=_fill,
            mend=_run(STORAGE, f"[ ! -e {BALLAST} ] || {{ {EMPTIED}; }}"),
            tasks=UNCHECKED,
        ),
        Fault(
            "backup_server_lost",
            "the backup server, which is the listener, is cut off",
            strike=_cut(BACKUP),
            tasks=UNCHECKED,
        ),
        Fault(
            "repository_lost",
            "the repository is moved away",
            strike=_run(BACKUP, f"mv {REPOSITORY} {REPOSITORY}.lost"),
            mend=_run(
                BACKUP, f"[ ! -d {REPOSITORY}.lost ] || {{ rm -rf {REPOSITORY}; mv {REPOSITORY}.lost {REPOSITORY}; }}"
            ),
            tasks=UNCHECKED,
        ),
        Fault("holder_killed", "the holder of fs1 gets SIGKILL", strike=_holder(signal.SIGKILL), tasks=ARMED),
        Fault("holder_stopped", "the holder of fs1 gets SIGSTOP", strike=_holder(signal.SIGSTOP), tasks=ARMED),
        Fault(
            "holder_and_partner_killed",
            "the holder of fs1 and its partner get SIGKILL",
            strike=_holder(signal.SIGKILL, partner=True),
            tasks=ARMED,
        ),
        Fault(
            "all_killed",
            "every process of OpenISB on fs1 gets SIGKILL, but for the guard, which no pattern for it finds",
            strike=_everything,
            tasks=ARMED,
        ),
        Fault(
            "clock_jumps",
            "the wall clock of fs1's holder jumps an hour ahead",
            before=lambda stage: stage.machine.set_clock(stage.machine.servers[0], "+0"),
            strike=_clock,
        ),
    )
}
