# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""However many tasks follow jobs on a host, it is polled by one of them at a time."""

from __future__ import annotations

import multiprocessing
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.openisb.backup.plugins.plugin_utils.polls import Polls

FOLLOWERS = 12


def test_an_answer_serves_all_who_wait(tmp_path: Path) -> None:
    asked, overlapping, running = [], [], threading.Lock()
    everybody = threading.Barrier(FOLLOWERS)
    found: list[Any] = []

    def ask(_known: dict[str, Any]) -> dict[str, Any]:
        overlapping.append(not running.acquire(blocking=False))
        asked.append(1)
        time.sleep(0.5)
        running.release()
        return {"j": {"finished": False}}

    def follow() -> None:
        polls = Polls(str(tmp_path), "backup1 /run/openisb")
        everybody.wait()
        found.append(polls.look(ask))

    threads = [threading.Thread(target=follow) for _number in range(FOLLOWERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [{"j": {"finished": False}}] * FOLLOWERS
    assert len(asked) == 1 and not any(overlapping)


def test_the_next_look_is_a_new_poll(tmp_path: Path) -> None:
    numbers = iter(range(10))
    polls = Polls(str(tmp_path), "h")
    assert [polls.look(lambda _known: {"number": next(numbers)})["number"] for _look in range(3)] == [0, 1, 2]
    late = Polls(str(tmp_path), "h")  # what was found before it is not its answer
    assert late.look(lambda _known: {"number": next(numbers)}) == {"number": 3}
    assert polls.look(lambda _known: pytest.fail("there is an answer that it has not seen")) == {"number": 3}


def test_a_poll_is_told_what_the_one_before_has_found(tmp_path: Path) -> None:
    """So that a job that ends between two polls is news to the second one."""
    told: list[dict[str, Any]] = []
    for number in range(3):
        Polls(str(tmp_path), "h").look(lambda known, number=number: told.append(known) or {"number": number})
    assert told == [{}, {"number": 0}, {"number": 1}]


def test_hosts_are_polled_independently(tmp_path: Path) -> None:
    first, second = Polls(str(tmp_path), "backup1 /run"), Polls(str(tmp_path), "backup2 /run")
    assert first.look(lambda _known: {"a": 1, **second.look(lambda _known: {"b": 2})}) == {"a": 1, "b": 2}


def test_a_poll_that_fails_is_made_by_another(tmp_path: Path) -> None:
    def fail(_known: dict[str, Any]) -> dict[str, Any]:
        raise AnsibleConnectionFailure("no route")

    polls = Polls(str(tmp_path), "h")
    with pytest.raises(AnsibleConnectionFailure):
        polls.look(fail)
    assert Polls(str(tmp_path), "h").look(lambda _known: {"j": 1}) == {"j": 1}


def test_the_turn_of_a_killed_process_ends_with_it(tmp_path: Path) -> None:
    begun = multiprocessing.Event()

    def hang(_known: dict[str, Any]) -> dict[str, Any]:
        begun.set()
        time.sleep(60)
        return {}

    process = multiprocessing.Process(target=lambda: Polls(str(tmp_path), "h").look(hang))
    process.start()
    assert begun.wait(10)
    process.kill()
    process.join()
    assert Polls(str(tmp_path), "h").look(lambda _known: {"j": 1}) == {"j": 1}
