# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Many hosts are asked at once: a silent one is given up in time, with its programs, and takes no other with it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.plugin_utils.at_once import Outcomes, ask_all

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]


class Servers:
    """Servers whose connections start programs."""

    def __init__(self) -> None:
        self.programs: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str) -> subprocess.Popen[bytes]:
        self.programs[name] = subprocess.Popen(SLEEP)
        return self.programs[name]

    def silent(self, name: str, outcomes: Outcomes) -> None:
        """Its connection's program never ends."""
        self.start(name).wait()
        outcomes.put((name, {"ok": True}))

    def lasting(self, name: str, outcomes: Outcomes) -> None:
        """Answers; its connection keeps a program that the next command needs."""
        self.start(name)
        outcomes.put((name, {"ok": True}))

    def ended(self, name: str) -> bool:
        try:
            return self.programs[name].wait(3) != 0
        except subprocess.TimeoutExpired:
            return False


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    yield made
    for program in made.programs.values():
        program.kill()
        program.wait()


def test_every_server_has_an_answer_in_time(servers: Servers) -> None:
    begun = time.monotonic()
    answers = ask_all({"fs1": (servers.silent,), "fs2": (servers.lasting,)}, 0.5)
    assert time.monotonic() - begun < 5
    assert answers == {
        "fs1": {"ok": False, "unreachable": True, "error": "no answer within 0.5 s"},
        "fs2": {"ok": True},
    }


def test_only_the_programs_of_silent_servers_are_ended(servers: Servers) -> None:
    of_the_task = servers.start("task")
    ask_all({"fs1": (servers.silent,), "fs2": (servers.lasting,), "fs3": (servers.silent,)}, 0.5)
    assert servers.ended("fs1") and servers.ended("fs3")
    assert servers.programs["fs2"].poll() is None and of_the_task.poll() is None


def test_a_program_of_another_question_goes_on(servers: Servers) -> None:
    """A snapshot that is still being taken is not ended because a server is silent."""
    answers: dict[str, Any] = {}
    other = threading.Thread(target=lambda: answers.update(ask_all({"storage": (servers.silent,)}, 3)))
    other.start()
    ask_all({"fs1": (servers.silent,)}, 0.5)
    assert servers.ended("fs1") and servers.programs["storage"].poll() is None
    other.join()
    assert servers.ended("storage") and not answers["storage"]["ok"]


def test_only_so_many_at_the_same_time() -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def busy(name: str, outcomes: Outcomes) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.02)
        with lock:
            now[0] -= 1
        outcomes.put((name, {"ok": True}))

    names = [f"fs{number}" for number in range(12)]
    answers = ask_all(dict.fromkeys(names, (busy,)), 20, 3)
    assert sorted(answers) == sorted(names)
    assert all(answer["ok"] for answer in answers.values())
    assert most == [3]


def test_one_whose_turn_comes_too_late_is_not_called(servers: Servers) -> None:
    called = []

    def late(name: str, outcomes: Outcomes) -> None:
        called.append(name)
        outcomes.put((name, {"ok": True}))

    answers = ask_all({"fs1": (servers.silent,), "fs2": (late,)}, 0.5, 1)
    assert answers["fs2"] == {"ok": False, "unreachable": True, "error": "no answer within 0.5 s"}
    assert servers.ended("fs1")  # which lets fs2 have its turn
    time.sleep(0.2)
    assert called == []
