# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard: what becomes of a hold when holder and partner are killed, or hang, together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import children, mounts
from ansible_collections.openisb.backup.plugins.module_utils.host.processes import identity, is_running
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import cgroups, guard, manage
from marks import slow

from .conftest import Holds, wait_for

ARM_AND_WAIT = """
import sys, time
sys.path.insert(0, {root!r})
if {cgroup!r}:
    with open({cgroup!r} + "/cgroup.procs", "w") as stream:
        stream.write("0")
from tests import conftest
from tests.unit.quiesce.conftest import FileDriver, Holds
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import drivers
from pathlib import Path
drivers.DRIVERS["file"] = FileDriver
Holds(Path({folder!r})).arm(hold_ttl={hold_ttl!r})
print("armed", flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def armed_elsewhere(holds: Holds, root: Path, mark: str = "", cgroup: str = "", hold_ttl: float = 10) -> Iterator[None]:
    """A hold that another process has armed, with ``mark`` on its command line and in a cgroup."""
    code = ARM_AND_WAIT.format(root=str(root), folder=str(holds.folder), cgroup=cgroup, hold_ttl=hold_ttl)
    command = [sys.executable, "-c", code, mark]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True, text=True) as armer:
        try:
            assert armer.stdout is not None
            assert armer.stdout.readline() == "armed\n"
            yield
        finally:
            armer.kill()


def command_line(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    return ""


def matching(pattern: str) -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and pattern in command_line(int(name))]


def assert_thawed_by_the_guard(holds: Holds, killed: list[dict[str, Any]], begun: float, within: float) -> None:
    wait_for(lambda: holds.frozen() == [], within)
    assert time.monotonic() - begun < within
    assert not any(map(is_running, killed))
    holds.wait_for_thaw_by("guard")
    answer = holds.ask("thaw")
    assert (answer["ok"], answer["state"], answer["hold_unbroken"]) == (True, "thawed", False)
    assert "the guard thawed in their place" in answer["error"]
    assert holds.log()[-2:] == ["thaw b", "thaw a"]
    assert [entry["marks"] for entry in holds.find().record["drivers"]] == [{}, {}]


def assert_nothing_is_left(holds: Holds, processes: list[dict[str, Any]]) -> None:
    assert manage.end(holds.run_dir, holds.find(), 5)["ok"]
    wait_for(lambda: not any(map(is_running, processes)))
    assert os.listdir(holds.run_dir) == ["quiesce.lock"]


def test_a_pattern_that_kills_holder_and_partner_leaves_the_guard_which_thaws(holds: Holds, project_root: Path) -> None:
    mark = "openisb-marked"
    with armed_elsewhere(holds, project_root, mark):
        assert holds.ask("freeze")["ok"]
        record, processes = holds.find().record, holds.processes()
        found = matching(mark)
        assert {record["holder"]["pid"], record["partner"]["pid"]} < set(found)
        begun = time.monotonic()
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        assert_thawed_by_the_guard(holds, [record["holder"], record["partner"]], begun, 1)
        assert holds.find().record["holder"] == record["guard"]
        assert_nothing_is_left(holds, processes)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    """A cgroup whose processes can all be killed at once."""
    folder = next((made for made in map(make_cgroup, mounts.current()) if made is not None), None)
    if folder is None:
        pytest.skip("no cgroup v2 can be made here, or this kernel cannot kill one")
    yield folder
    (folder / "cgroup.kill").write_text("1")
    wait_for(lambda: not (folder / "cgroup.procs").read_text())
    folder.rmdir()


def make_cgroup(mount: mounts.Mount) -> Path | None:
    folder = Path(mount.point, f"openisb-test-{os.getpid()}")
    if mount.type == "cgroup2" and mount.root == "/":
        with contextlib.suppress(OSError):
            folder.mkdir()
            if (folder / "cgroup.kill").exists():
                return folder
            folder.rmdir()
    return None


@pytest.mark.root
def test_the_end_of_the_whole_cgroup_leaves_the_guard_which_thaws(
    holds: Holds, project_root: Path, cgroup: Path
) -> None:
    with armed_elsewhere(holds, project_root, cgroup=str(cgroup)):
        assert holds.ask("freeze")["guard"]["place"] != cgroups.STAYED
        record, processes = holds.find().record, holds.processes()
        assert str(record["guard"]["pid"]) not in (cgroup / "cgroup.procs").read_text().split()
        begun = time.monotonic()
        (cgroup / "cgroup.kill").write_text("1")
        assert_thawed_by_the_guard(holds, [record["holder"], record["partner"]], begun, 1)
        assert_nothing_is_left(holds, processes)


def test_when_holder_and_partner_hang_the_guard_kills_both_and_thaws(holds: Holds) -> None:
    holds.arm(hold_ttl=0.5)
    holds.ask("freeze")
    begun = time.monotonic()
    record = holds.find().record
    for name in ("holder", "partner"):
        os.kill(record[name]["pid"], signal.SIGSTOP)
    assert_thawed_by_the_guard(holds, [record["holder"], record["partner"]], begun, 0.5 + 1.5)


def test_a_partner_that_is_killed_while_it_thaws_is_followed_by_the_guard(holds: Holds) -> None:
    holds.arm(descriptions=[holds.driver("a"), holds.driver("b", thaw="hang")])
    holds.ask("freeze")
    holds.kill("holder")
    wait_for(lambda: holds.log()[-1] == "thaw b")
    wait_for(lambda: holds.find().record["partner"] is None)
    holds.kill("holder")  # which the partner has become
    holds.release("b")
    wait_for(lambda: holds.frozen() == [])
    holds.wait_for_thaw_by("guard")


def test_the_guard_leaves_a_thaw_to_the_partner(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    record = holds.find().record
    holds.kill_holder()
    holds.wait_for_partner()
    wait_for(lambda: not is_running(record["guard"]))  # its work is done
    assert holds.log().count("thaw a") == 1


def test_what_asks_for_a_thaw_waits_for_the_guard(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    found = holds.find()
    holds.kill("partner", "holder")
    answer = manage.thaw(holds.run_dir, found, 5)
    assert (answer["ok"], answer["reason"]) == (True, "guard")
    assert holds.log().count("thaw a") == 1


@pytest.mark.slow
def test_what_asks_for_a_thaw_does_not_wait_for_a_guard_that_hangs(holds: Holds) -> None:
    holds.arm(hold_ttl=600)
    holds.ask("freeze")
    processes = holds.processes()
    os.kill(holds.find().record["guard"]["pid"], signal.SIGSTOP)
    holds.kill("partner", "holder")
    answer = manage.thaw(holds.run_dir, holds.find(), 20)
    assert (answer["ok"], answer["reason"]) == (True, "recovery")
    assert not any(map(is_running, processes))


def test_without_its_guard_the_holder_does_not_freeze(holds: Holds) -> None:
    holds.arm()
    holds.kill("guard")
    wait_for(lambda: not holds.ask("status")["guard"]["alive"])
    answer = holds.ask("freeze")
    assert not answer["ok"]
    assert "the holder's guard is gone, so nothing is frozen" in answer["error"]
    assert not Path(holds.folder, "log").exists()


def test_a_frozen_holder_goes_on_without_its_guard(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    holds.kill("guard")
    assert holds.ask("thaw")["hold_unbroken"] is True


@pytest.mark.parametrize("command", ["thaw", "end"])
def test_the_guard_ends_with_the_freeze(holds: Holds, command: str) -> None:
    holds.arm()
    holds.ask("freeze")
    third = holds.find().record["guard"]
    assert holds.ask(command)["guard"] is None
    wait_for(lambda: not is_running(third), 1)


@pytest.mark.slow
def test_those_that_hang_do_not_keep_the_holder_from_its_end(holds: Holds) -> None:
    holds.arm()
    record, processes = holds.find().record, holds.processes()
    for name in ("guard", "partner"):
        os.kill(record[name]["pid"], signal.SIGSTOP)
    assert holds.ask("end")["ok"]
    wait_for(lambda: not any(map(is_running, processes)), 8)


def test_the_guard_ends_with_a_holder_that_nobody_needs(holds: Holds) -> None:
    holds.arm(arm_ttl=0.2)
    processes = holds.processes()
    wait_for(lambda: not any(map(is_running, processes)))


def test_the_guard_ends_with_a_holder_that_cannot_start(holds: Holds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "NAME", "thaw-test")
    Path(holds.run_dir, "holder-r1.sock").mkdir(parents=True)
    with pytest.raises(manage.HolderError, match="could not start"):
        holds.arm()
    wait_for(lambda: not [pid for pid in matching("thaw-test") if command_line(pid) == "thaw-test"])


def test_what_was_never_frozen_is_left_as_it_is(holds: Holds) -> None:
    holds.arm()
    processes = holds.processes()
    holds.kill("partner", "holder")
    wait_for(lambda: not any(map(is_running, processes)))
    assert holds.find().record["status"]["state"] == "armed"
    assert not Path(holds.folder, "log").exists()


def test_a_signal_to_everybody_is_left_to_the_holder(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    processes = holds.processes()
    for process in processes:
        os.kill(process["pid"], signal.SIGTERM)
    wait_for(lambda: not any(map(is_running, processes)))
    assert holds.find().public()["reason"] == "signal"


@pytest.mark.root
def test_the_guard_is_protected_and_says_so(holds: Holds) -> None:
    told = holds.arm()["guard"]
    pid = holds.find().record["guard"]["pid"]
    spared = Path(f"/proc/{pid}/oom_score_adj").read_text() == "-1000\n"  # not every container lets it be
    assert told == {**told, "alive": True, "renamed": True, "memory_locked": True, "oom_protected": spared}
    assert command_line(pid) == Path(f"/proc/{pid}/comm").read_text().strip() == "thaw-guard"
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    assert int(status["VmLck"].split()[0]) > 1000
    assert (os.getsid(pid), os.readlink(f"/proc/{pid}/cwd")) == (pid, "/")
    kinds = {os.readlink(f"/proc/{pid}/fd/{name}").partition(":")[0] for name in os.listdir(f"/proc/{pid}/fd")}
    assert kinds == {"/dev/null", "pipe"}


def test_protection_that_is_not_to_be_had_is_told(holds: Holds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "SCORE", "/proc/self/no_such_file")
    armed = holds.arm()
    assert (armed["oom_protected"], armed["guard"]["oom_protected"]) == (False, False)
    assert holds.ask("freeze")["ok"]


SYSTEMD_RUN = """#!/bin/sh
echo "$@" >> {folder}/asked
for word; do
    case $word in
        --unit=*) unit=${{word#--unit=}} ;;
        --property={unknown}*) exit 1 ;;
    esac
done
mkdir {cgroup}/$unit && echo $$ > {cgroup}/$unit/cgroup.procs || exit 1
{then}
exec cat
"""


@pytest.fixture
def systemd(tmp_path: Path, cgroup: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """What stands in for systemd: it makes the cgroup of a unit, and is told of a property that it does not know."""
    program = tmp_path / "bin" / "systemd-run"
    program.parent.mkdir()
    monkeypatch.setattr(cgroups, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(cgroups, "PATH", f"{program.parent}:{cgroups.PATH}")
    monkeypatch.setattr(cgroups, "SYSTEMD_TIMEOUT", 0.5)

    def make(unknown: str = "nothing", then: str = "") -> Path:
        program.write_text(SYSTEMD_RUN.format(folder=tmp_path, cgroup=cgroup, unknown=unknown, then=then))
        program.chmod(0o755)
        return tmp_path / "asked"

    yield make
    (cgroup / "cgroup.kill").write_text("1")
    for unit in cgroup.glob("thaw-guard-*"):
        wait_for(lambda unit=unit: not (unit / "cgroup.procs").read_text())
        unit.rmdir()


@pytest.mark.root
@pytest.mark.parametrize("unknown", ["nothing", slow("ManagedOOMPreference")], ids=["new", "old"])
def test_where_there_is_systemd_the_guard_has_a_unit_of_its_own(holds: Holds, systemd: Any, unknown: str) -> None:
    asked = systemd(unknown)
    told = holds.arm()["guard"]["place"]
    unit = told.partition(" ")[2]
    assert told.startswith("unit thaw-guard-")
    pid = holds.find().record["guard"]["pid"]
    assert unit in Path(f"/proc/{pid}/cgroup").read_text()
    last = asked.read_text().splitlines()[-1]
    assert (f"--unit={unit}" in last, "ManagedOOMPreference=omit" in last) == (True, unknown == "nothing")
    other = holds_in(holds, "other").arm()["guard"]["place"]
    assert other != told
    for each in (holds, holds_in(holds, "other")):
        assert manage.end(each.run_dir, each.find(), 5)["ok"]
    wait_for(lambda: not is_running(identity(pid)))


@pytest.mark.slow
@pytest.mark.root
def test_a_systemd_that_does_not_answer_is_not_waited_for(holds: Holds, systemd: Any) -> None:
    systemd(then="exec sleep 60")
    begun = time.monotonic()
    armed = holds.arm()
    assert time.monotonic() - begun < 30
    assert armed["guard"]["place"] in (cgroups.ROOT, cgroups.STAYED)
    assert holds.ask("end")["ok"]


def holds_in(holds: Holds, name: str) -> Holds:
    other = Holds(holds.folder / name)
    other.folder.mkdir(exist_ok=True)
    return other
