# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A client program that is kept open: a shell stands in for it, and fails, hangs and dies."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.sessions import Session, SessionEnded

from .conftest import wait_for

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
CLIENT = """
SELECT() { echo "$1"; }
FAIL() { echo noise; echo "ERROR 7: $1"; exit 7; }
while read -r line; do eval "${line%;}"; done
"""
Open = Callable[[], Session]


@pytest.fixture
def open_session() -> Iterator[Open]:
    made: list[Session] = []

    def make() -> Session:
        made.append(Session(["sh", "-c", CLIENT], ENVIRONMENT))
        return made[-1]

    yield make
    for session in made:
        session.close()


def gone(session: Session) -> bool:
    return not Path(f"/proc/{session.pid}").exists()


def test_statements_return_their_lines_in_turn(open_session: Open) -> None:
    session = open_session()
    assert session.run("echo 1; echo; echo 3", 5) == ["1", "", "3"]
    assert session.run("x=5", 5) == []
    assert session.run("echo $x", 5) == ["5"]
    assert session.why() == ""


def test_much_output_arrives_whole(open_session: Open) -> None:
    assert open_session().run("seq 100000", 20) == [str(number) for number in range(1, 100001)]


def test_a_statement_that_fails_ends_the_session(open_session: Open) -> None:
    session = open_session()
    with pytest.raises(SessionEnded) as caught:
        session.run("FAIL badly", 5)
    assert str(caught.value) == session.why() == "'FAIL badly' failed: ERROR 7: badly"
    assert gone(session)
    with pytest.raises(SessionEnded, match="'echo 1' was not run: 'FAIL badly' failed"):
        session.run("echo 1", 5)


def test_a_client_that_says_nothing_is_told_of(open_session: Open) -> None:
    with pytest.raises(SessionEnded, match="'exit 3' failed: the client ended with status 3"):
        open_session().run("exit 3", 5)


def test_a_statement_that_takes_too_long_ends_the_session(open_session: Open) -> None:
    session = open_session()
    begun = time.monotonic()
    with pytest.raises(SessionEnded, match="'sleep 60' failed: it took longer than 0.2 s"):
        session.run("sleep 60", 0.2)
    assert time.monotonic() - begun < 2
    assert gone(session)


def test_a_statement_that_prints_without_end_is_bounded(open_session: Open) -> None:
    session = open_session()
    with pytest.raises(SessionEnded, match="it took longer than 0.3 s"):
        session.run("while :; do echo more; sleep 0.01; done", 0.3)
    assert gone(session)


def test_a_statement_can_be_cancelled(open_session: Open) -> None:
    session, cancelled = open_session(), threading.Event()
    threading.Timer(0.1, cancelled.set).start()
    with pytest.raises(SessionEnded, match="it was cancelled"):
        session.run("sleep 60", 60, cancelled)
    assert gone(session)


def test_the_death_of_the_client_is_seen(open_session: Open) -> None:
    session = open_session()
    session.run("x=5", 5)
    os.kill(session.pid, signal.SIGKILL)
    wait_for(session.why)
    assert session.why() == "the client was ended by somebody else (status -9)"
    with pytest.raises(SessionEnded, match="ended by somebody else"):
        session.run("echo $x", 5)


def test_a_client_ends_when_nobody_talks_to_it_any_more(open_session: Open) -> None:
    session = open_session()
    session.run("x=5", 5)
    session.close()
    assert session.why() == "it was closed"
    assert gone(session)
    session.close()


def test_a_client_that_does_not_want_to_end_is_ended() -> None:
    session = Session(["sh", "-c", "trap '' TERM; while :; do sleep 1; done"], ENVIRONMENT)
    begun = time.monotonic()
    session.close()
    assert time.monotonic() - begun < 3
    assert gone(session)


def test_a_missing_client_is_named() -> None:
    with pytest.raises(SessionEnded, match="/nowhere/psql cannot be started: No such file"):
        Session(["/nowhere/psql"], ENVIRONMENT)


def test_what_a_client_said_that_ended_before_it_was_asked_is_told() -> None:
    session = Session(["sh", "-c", "echo warning; echo 'ERROR 2002: no server'; exit 1"], ENVIRONMENT)
    wait_for(session.why)
    assert session.why() == "ERROR 2002: no server"
    with pytest.raises(SessionEnded, match="'SELECT 1' was not run: ERROR 2002: no server"):
        session.run("SELECT 1", 5)
    session.close()
