# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Holder and partner as processes: what becomes of a hold when one of them, or everything else, dies or hangs."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.processes import is_running
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import manage, protocol, records
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import HolderError

from .conftest import Holds, wait_for


def test_freeze_and_thaw(holds: Holds) -> None:
    armed = holds.arm()
    assert (armed["state"], armed["partner_alive"], armed["error"]) == ("armed", True, None)
    assert holds.frozen() == []
    frozen = holds.ask("freeze")
    assert (frozen["ok"], frozen["state"], frozen["hold_unbroken"]) == (True, "frozen", True)
    assert holds.frozen() == ["a", "b"]
    thawed = holds.ask("thaw")
    assert (thawed["ok"], thawed["state"], thawed["hold_unbroken"]) == (True, "thawed", True)
    assert holds.frozen() == []
    assert holds.log() == ["freeze a", "freeze b", "thaw b", "thaw a"]
    assert frozen["freeze_started"] <= frozen["frozen"] <= thawed["thaw_started"] <= thawed["thawed"]
    assert thawed["window_ms"] == pytest.approx((thawed["thawed"] - thawed["freeze_started"]) * 1000, abs=5)


def test_a_repeated_thaw_answers_the_same(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    assert holds.ask("thaw") == holds.ask("thaw")
    assert holds.log().count("thaw a") == 1


def test_the_holder_thaws_when_its_time_to_live_ends(holds: Holds) -> None:
    holds.arm(hold_ttl=0.4)
    frozen = holds.ask("freeze")
    wait_for(lambda: holds.frozen() == [])
    # The holder may still be about to note that the last driver has thawed.
    wait_for(lambda: holds.ask("status")["state"] != "thawing", 1)
    status = holds.ask("status")
    assert (status["state"], status["reason"], status["hold_unbroken"]) == ("thawed", "ttl", False)
    assert 0.4 <= status["thawed"] - frozen["freeze_started"] < 0.5 + 1
    late = holds.ask("thaw")
    assert (late["ok"], late["hold_unbroken"]) == (True, False)


def test_the_partner_thaws_when_the_holder_is_killed(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    killed = time.monotonic()
    holds.kill_holder()
    wait_for(lambda: holds.frozen() == [])
    assert time.monotonic() - killed < 5  # half the time to live
    wait_for(lambda: holds.find().answers)
    thawed = holds.ask("thaw")
    assert (thawed["ok"], thawed["reason"], thawed["hold_unbroken"]) == (True, "partner", False)
    assert holds.log()[-2:] == ["thaw b", "thaw a"]
    told = holds.find().public()
    assert told["error"].startswith("the holder died")
    assert 0 < told["window_ms"] < 5000
    with pytest.raises(HolderError, match="freezes only once"):
        holds.arm()
    holds.arm("r2")


def test_a_holder_that_dies_after_its_thaw_leaves_nothing_to_do(holds: Holds) -> None:
    """What it has measured stays as it was: nobody thaws once more, and calls the time until then a freeze."""
    holds.arm()
    holds.ask("freeze")
    thawed = holds.ask("thaw")
    calls = holds.log()
    processes = holds.processes()
    holds.kill_holder()
    wait_for(lambda: not any(map(is_running, processes)))
    found = holds.find()
    assert (found.state, found.leftover) == ("absent", False)
    again = manage.thaw(holds.run_dir, found, 5)
    names = ("ok", "state", "reason", "hold_unbroken", "window_ms")
    assert [again[name] for name in names] == [thawed[name] for name in names]
    assert holds.log() == calls
    assert manage.end(holds.run_dir, found, 5)["ok"]
    assert manage.find(holds.run_dir, "r1") is None


def test_the_partner_thaws_when_the_holder_hangs(holds: Holds) -> None:
    """Without the guard, which would be first where the machine lets the partner wait."""
    holds.arm(hold_ttl=0.5)
    holds.ask("freeze")
    frozen = time.monotonic()
    holds.kill("guard")
    holder = holds.find().record["holder"]
    os.kill(holder["pid"], signal.SIGSTOP)
    wait_for(lambda: holds.frozen() == [], 3)
    assert 0.4 < time.monotonic() - frozen < 0.5 + 2
    assert not is_running(holder)
    wait_for(lambda: holds.find().answers)
    thawed = holds.ask("thaw")
    assert (thawed["ok"], thawed["reason"], thawed["hold_unbroken"]) == (True, "partner", False)


@pytest.mark.parametrize(("hold_ttl", "patience"), [(600.0, 3.0), (1.0, 1.0 + 0.5)], ids=["by command", "at its end"])
def test_the_partner_thaws_when_the_holder_hangs_while_it_thaws(holds: Holds, hold_ttl: float, patience: float) -> None:
    """Whoever has begun to thaw is not trusted to end it: it says all the time that it lives."""
    holds.arm(descriptions=[holds.driver("a", thaw="hang")], hold_ttl=hold_ttl)
    holds.ask("freeze")
    begun = time.monotonic()
    if hold_ttl == 600.0:
        with contextlib.suppress(HolderError):
            holds.ask("thaw", timeout=0.1)
    wait_for(lambda: "thaw a" in holds.log(), 3)
    holder = holds.find().record["holder"]
    os.kill(holder["pid"], signal.SIGSTOP)
    holds.release("a")
    wait_for(lambda: holds.frozen() == [], 6)
    assert time.monotonic() - begun < patience + 1
    wait_for(lambda: not is_running(holder), 4)
    wait_for(lambda: holds.find().answers)
    assert holds.ask("thaw")["reason"] == "partner"


@pytest.mark.slow
def test_a_holder_that_goes_on_trying_to_thaw_is_left_alone_by_its_partner(holds: Holds) -> None:
    holds.arm(descriptions=[holds.driver("a", thaw="fail"), holds.driver("b", thaw="hang")], hold_ttl=0.2)
    holds.ask("freeze")
    holder = holds.find().record["holder"]
    time.sleep(5)
    assert is_running(holder)
    for label in "ab":
        holds.release(label)
    wait_for(lambda: holds.frozen() == [], 3)
    time.sleep(4)  # nothing is frozen any more, and silence means nothing
    assert is_running(holder)
    assert holds.ask("thaw")["reason"] == "ttl"


@pytest.mark.slow
@pytest.mark.parametrize("state", ["armed", "frozen", "taken over"])
def test_a_holder_that_hangs_is_ended_all_the_same(holds: Holds, state: str) -> None:
    """Long before its time is over: who ends the hold kills it, and its partner, or else the record, has the rest."""
    holds.arm(hold_ttl=600)
    if state != "armed":
        holds.ask("freeze")
    if state == "taken over":
        holds.kill_holder()
        wait_for(lambda: holds.find().answers)
    holder = holds.find().record["holder"]
    os.kill(holder["pid"], signal.SIGSTOP)
    begun = time.monotonic()
    answer = manage.end(holds.run_dir, holds.find(), 20)
    assert answer["ok"]
    assert time.monotonic() - begun < 20
    assert holds.frozen() == []
    assert not is_running(holder)
    assert manage.find(holds.run_dir, "r1") is None


def test_a_holder_that_thaws_in_time_is_left_alone_by_its_partner(holds: Holds) -> None:
    holds.arm(hold_ttl=0.2)
    holds.ask("freeze")
    holder = holds.find().record["holder"]
    time.sleep(1.0)
    assert holds.frozen() == []
    assert is_running(holder)
    assert holds.ask("thaw")["reason"] == "ttl"


def test_the_partner_thaws_what_a_killed_holder_was_freezing(holds: Holds) -> None:
    holds.arm(descriptions=[holds.driver("a"), holds.driver("b", freeze="hang")])
    with (
        socket.socket(socket.AF_UNIX) as connection,
        protocol.short_path(records.socket_path(holds.run_dir, "r1")) as name,
    ):
        connection.connect(name)
        connection.sendall(protocol.encode({"run_id": "r1", "command": "freeze"}))
        wait_for(lambda: holds.frozen() == ["a", "b"])
        holds.kill_holder()
        wait_for(lambda: holds.frozen() == [])


def test_a_thaw_asked_while_the_partner_takes_over_is_answered(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    found = holds.find()
    holds.kill_holder()
    answer = manage.thaw(holds.run_dir, found, 5)
    assert (answer["ok"], answer["reason"]) == (True, "partner")
    assert holds.frozen() == []


def test_a_signal_thaws_and_ends_the_holder(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    found = holds.find()
    os.kill(found.record["holder"]["pid"], signal.SIGTERM)
    wait_for(lambda: not holds.find().alive)
    assert holds.frozen() == []
    assert holds.find().public()["reason"] == "signal"
    assert not is_running(found.record["partner"])


def test_end_thaws_and_leaves_nothing(holds: Holds) -> None:
    holds.arm()
    processes = holds.processes()
    holds.ask("freeze")
    assert holds.ask("end")["hold_unbroken"] is True
    wait_for(lambda: not any(is_running(process) for process in processes))
    wait_for(lambda: os.listdir(holds.run_dir) == ["quiesce.lock"])
    assert holds.frozen() == []


def test_a_holder_that_nobody_needs_ends(holds: Holds) -> None:
    holds.arm(arm_ttl=0.2)
    wait_for(lambda: not holds.find().alive)
    assert holds.find().public()["reason"] == "arm_ttl"
    assert holds.arm()["state"] == "armed"


def test_a_holder_ends_when_it_has_lingered(holds: Holds) -> None:
    holds.arm(linger=0.3)
    holds.ask("freeze")
    holds.ask("thaw")
    assert holds.ask("status")["state"] == "thawed"
    wait_for(lambda: manage.find(holds.run_dir, "r1") is None)


def test_a_second_run_is_refused_as_long_as_the_first_is_live(holds: Holds) -> None:
    holds.arm()
    for command in ("status", "freeze"):
        holds.ask(command)
        with pytest.raises(HolderError, match="run r1 holds this server"):
            holds.arm("r2")
    holds.ask("thaw")
    assert holds.arm("r2")["run_id"] == "r2"
    assert manage.find(holds.run_dir, "r1") is None


def test_a_failed_freeze_is_thawed_in_reverse(holds: Holds) -> None:
    holds.arm(descriptions=[holds.driver("a"), holds.driver("b", freeze="half"), holds.driver("c")])
    answer = holds.ask("freeze")
    assert (answer["ok"], answer["state"], answer["error"]) == (False, "failed", "b is frozen in part")
    assert holds.log() == ["freeze a", "freeze b", "thaw b", "thaw a"]
    assert holds.frozen() == []


def test_a_freeze_that_hangs_is_bounded(holds: Holds) -> None:
    holds.arm(descriptions=[holds.driver("a"), holds.driver("b", freeze="hang", timeout=0.3)])
    with pytest.raises(HolderError):
        holds.ask("freeze", timeout=1)
    wait_for(lambda: holds.frozen() == [] and holds.ask("status")["state"] == "thawing")
    status = holds.ask("status")
    assert "takes longer than 0.3 s" in status["error"]
    holds.release("b")  # the freeze takes hold after all, and is undone
    wait_for(lambda: holds.ask("status")["state"] == "failed")
    assert holds.frozen() == []
    assert holds.log()[-1] == "thaw b"


def test_the_time_to_live_ends_a_freeze_that_hangs(holds: Holds) -> None:
    holds.arm(descriptions=[holds.driver("a"), holds.driver("b", freeze="hang")], hold_ttl=0.4)
    with pytest.raises(HolderError):
        holds.ask("freeze", timeout=1)
    wait_for(lambda: holds.frozen() == [] and holds.ask("status")["reason"] == "ttl")
    holds.release("b")
    wait_for(lambda: holds.ask("status")["state"] == "failed")


def test_a_thaw_that_fails_is_said_and_tried_again(holds: Holds) -> None:
    holds.arm(descriptions=[holds.driver("a"), holds.driver("b", thaw="fail")])
    holds.ask("freeze")
    answer = holds.ask("thaw")
    assert (answer["ok"], answer["error"]) == (False, "b cannot be thawed")
    wait_for(lambda: holds.frozen() == ["b"])  # the answer comes as soon as the thaw of each has begun
    with pytest.raises(HolderError, match="run r1 holds"):
        holds.arm("r2")
    holds.release("b")
    wait_for(lambda: holds.frozen() == [])
    wait_for(lambda: holds.ask("thaw")["ok"])


def test_a_hold_broken_from_outside_is_told(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    Path(holds.folder, "frozen-a").unlink()
    answer = holds.ask("thaw")
    assert (answer["ok"], answer["hold_unbroken"]) == (True, False)
    assert answer["error"] == "a was thawed by somebody else"


def test_what_all_left_is_found_and_thawed_from_the_record(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    holds.kill_all_three()
    found = holds.find()
    assert (found.leftover, found.public()["state"], holds.frozen()) == (True, "frozen", ["a", "b"])
    for run_id, message in (("r2", "run r1 left this server frozen"), ("r1", "left this server frozen")):
        with pytest.raises(HolderError, match=message):
            holds.arm(run_id)
    answer = manage.thaw(holds.run_dir, found, 5)
    assert (answer["ok"], answer["reason"], answer["hold_unbroken"]) == (True, "recovery", False)
    assert holds.frozen() == []
    assert not holds.find().leftover
    assert holds.arm("r2")["state"] == "armed"


def test_what_all_left_armed_is_no_obstacle(holds: Holds) -> None:
    holds.arm()
    holds.kill_all_three()
    assert not holds.find().leftover
    assert holds.arm()["state"] == "armed"


def test_without_its_partner_the_holder_does_not_freeze(holds: Holds) -> None:
    holds.arm()
    partner = holds.find().record["partner"]
    os.kill(partner["pid"], signal.SIGKILL)
    wait_for(lambda: not is_running(partner))
    answer = holds.ask("freeze")
    assert not answer["ok"]
    assert "partner process is gone" in answer["error"]
    assert not Path(holds.folder, "log").exists()


def test_a_frozen_holder_goes_on_without_its_partner(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    partner = holds.find().record["partner"]
    os.kill(partner["pid"], signal.SIGKILL)
    wait_for(lambda: not holds.ask("status")["partner_alive"])
    assert holds.ask("thaw")["hold_unbroken"] is True


def test_the_partner_outlives_a_signal_to_everybody(holds: Holds) -> None:
    holds.arm()
    holds.ask("freeze")
    record = holds.find().record
    os.kill(record["partner"]["pid"], signal.SIGTERM)
    time.sleep(0.1)
    assert is_running(record["partner"])
    holds.kill_holder()
    wait_for(lambda: holds.frozen() == [])


def test_nothing_is_frozen_without_a_record(holds: Holds) -> None:
    holds.arm()
    for path in Path(holds.run_dir).iterdir():
        if path.suffix != ".sock":
            path.unlink()
    Path(records.record_path(holds.run_dir, "r1") + ".new").mkdir()  # where the record would be written
    answer = holds.ask("freeze")
    assert (answer["ok"], answer["state"]) == (False, "failed")
    assert "cannot be recorded" in answer["error"]
    assert holds.frozen() == []
    os.kill(answer["pid"], signal.SIGTERM)
    wait_for(lambda: not os.path.exists(records.socket_path(holds.run_dir, "r1")))


def test_silent_and_senseless_clients_disturb_nobody(holds: Holds) -> None:
    holds.arm()
    with (
        socket.socket(socket.AF_UNIX) as silent,
        socket.socket(socket.AF_UNIX) as senseless,
        protocol.short_path(records.socket_path(holds.run_dir, "r1")) as name,
    ):
        silent.connect(name)
        senseless.connect(name)
        senseless.sendall(b"melt\n")
        assert "not a line of JSON" in protocol.decode(senseless.recv(10000))["error"]
        assert "unknown command" in holds.ask("melt")["error"]
        assert holds.ask("freeze")["ok"]


def test_a_client_that_goes_away_does_not_stop_what_it_asked(holds: Holds) -> None:
    holds.arm()
    with (
        socket.socket(socket.AF_UNIX) as connection,
        protocol.short_path(records.socket_path(holds.run_dir, "r1")) as name,
    ):
        connection.connect(name)
        connection.sendall(protocol.encode({"run_id": "r1", "command": "freeze"}))
    wait_for(lambda: holds.ask("status")["state"] == "frozen")


def open_descriptors(pid: int) -> list[str]:
    names = []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # the connection that armed it was just being closed
            names.append(os.readlink(f"/proc/{pid}/fd/{name}"))
    return names


def test_the_processes_let_go_of_everything(holds: Holds) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    armed = holds.arm()
    os.close(writer)
    os.set_blocking(reader, False)
    assert os.read(reader, 1) == b""  # nobody else has the other end
    os.close(reader)
    kinds = {name.partition(":")[0] for name in open_descriptors(armed["pid"])}
    assert kinds <= {"/dev/null", "pipe", "socket", "anon_inode"}
    for process in holds.processes():
        assert os.readlink(f"/proc/{process['pid']}/cwd") == "/"
        assert os.getsid(process["pid"]) == process["pid"]


def test_arming_twice_starts_one_holder(holds: Holds) -> None:
    first = holds.arm()
    limits = manage.Limits(arm_ttl=30, hold_ttl=10, linger=600)
    chosen = [holds.driver("a"), holds.driver("b")]
    assert manage.Arming(holds.run_dir, "r1", chosen, limits).plan() is False
    changed = limits._replace(hold_ttl=5)
    assert manage.Arming(holds.run_dir, "r1", chosen, changed).plan() is True
    again = holds.arm(hold_ttl=5)
    assert (again["pid"] != first["pid"], again["hold_ttl"]) == (True, 5)


def test_a_check_that_fails_starts_nothing(holds: Holds) -> None:
    Path(holds.folder, "frozen-b").touch()
    with pytest.raises(HolderError, match="b is frozen already"):
        holds.arm()
    assert records.read_all(holds.run_dir) == []


def test_a_holder_that_cannot_start_says_why(holds: Holds) -> None:
    Path(holds.run_dir, "holder-r1.sock").mkdir(parents=True)
    with pytest.raises(HolderError, match="could not start"):
        holds.arm()
    assert records.read_all(holds.run_dir) == []


@pytest.mark.parametrize("run_id", ["", "../x", "a b", "x" * 101, "r1\n"])
def test_a_run_id_that_names_no_file_is_refused(holds: Holds, run_id: str) -> None:
    with pytest.raises(HolderError, match="cannot be a run id"):
        holds.arm(run_id)


@pytest.mark.parametrize("text", ['{"run_id": "../r2"}', "[]", "{}", "nothing"])
def test_a_record_that_is_not_of_its_run_is_not_followed(holds: Holds, text: str) -> None:
    holds.arm()
    Path(records.record_path(holds.run_dir, "r2")).write_text(text, encoding="utf-8")
    with pytest.raises(HolderError, match=r"hold-r2\.json cannot be read: .* thaw by hand and remove it"):
        manage.find(holds.run_dir, "r2")
    Path(records.record_path(holds.run_dir, "r2")).unlink()


ARM_AND_WAIT = """
import sys, time
sys.path.insert(0, {root!r})
from tests import conftest
from tests.unit.quiesce.conftest import FileDriver, Holds
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import drivers
from pathlib import Path
drivers.DRIVERS["file"] = FileDriver
Holds(Path({folder!r})).arm(hold_ttl=0.5)
print("armed", flush=True)
time.sleep(60)
"""


def test_a_hold_outlives_whoever_armed_it(holds: Holds, project_root: Path) -> None:
    code = ARM_AND_WAIT.format(root=str(project_root), folder=str(holds.folder))
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "start_new_session": True, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **options) as armer:
        assert armer.stdout is not None
        assert armer.stdout.readline() == "armed\n"
        os.killpg(armer.pid, signal.SIGKILL)
    assert holds.ask("freeze")["ok"]
    assert holds.frozen() == ["a", "b"]
    wait_for(lambda: holds.frozen() == [])
