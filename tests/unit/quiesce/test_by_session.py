# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the drivers postgresql and mariadb have in common, each against its real server."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import manage

from . import servers
from .conftest import Holds, wait_for
from .servers import Mariadb, Postgres, new, running

pytestmark = pytest.mark.root
Build = Callable[..., Any]
LOST = "the session was lost before the thaw"


@pytest.fixture(params=[Postgres, Mariadb])
def server(request: pytest.FixtureRequest, open_folder: Path) -> Iterator[Any]:
    folder = open_folder / "socket"
    folder.mkdir()
    servers.give(folder, request.param.user)
    socket = folder if request.param is Postgres else folder / "socket"
    with running(new(request.param, open_folder / "data", socket)) as made:
        if request.param is Mariadb:
            made.create_database()
        yield made


@pytest.fixture
def make_driver(server: Any, build: Build) -> Build:
    def make(marks: dict[str, Any] | None = None, **options: Any) -> Any:
        return build(server.description(**options), marks)

    return make


def test_another_process_thaws_by_the_marks(server: Any, make_driver: Build) -> None:
    driver = make_driver()
    noted: list[Any] = []
    driver.on_marks(lambda: noted.append(dict(driver.marks)))
    driver.freeze()
    assert server.held()
    assert make_driver(marks=noted[0]).thaw() == []
    assert not server.held()
    (lost,) = driver.lost()
    assert f"{LOST}: the client was ended by somebody else (status -9)" in lost
    assert driver.thaw() == [lost]


def test_a_server_that_crashed_breaks_the_hold(server: Any, make_driver: Build) -> None:
    driver = make_driver()
    driver.freeze()
    assert driver.status()["frozen"] is True
    server.kill()
    assert LOST in driver.thaw()[0]
    assert driver.marks == {}


def test_a_thaw_that_cannot_tell_fails(server: Any, make_driver: Build) -> None:
    driver = make_driver()
    driver.freeze()
    other = make_driver(marks=driver.marks, user="nobody")
    with pytest.raises(DriverError, match="cannot determine whether the session has ended: .*nobody"):
        other.thaw()
    assert other.marks == driver.marks


def test_a_session_lost_while_armed_is_no_hold(server: Any, make_driver: Build) -> None:
    driver = make_driver()
    driver.prepare()
    server.kill()
    with pytest.raises(DriverError, match=f"{driver.name}: .* failed: "):
        driver.freeze()
    driver.thaw()
    assert driver.marks == {}


def test_a_killed_holder_leaves_no_freeze(server: Any, holds: Holds) -> None:
    holds.arm(descriptions=[server.description()])
    assert holds.ask("freeze")["ok"]
    assert server.held()
    holds.kill_holder()
    holds.wait_for_partner()
    assert not server.held()


def test_a_dead_hold_ends_by_itself(server: Any, holds: Holds) -> None:
    holds.arm(descriptions=[server.description()])
    holds.ask("freeze")
    holds.kill_all_three()
    wait_for(lambda: not server.held())
    assert manage.thaw(holds.run_dir, holds.find(), 10)["ok"]


@pytest.mark.slow
def test_a_lost_session_is_told_at_once_and_in_the_end(server: Any, holds: Holds) -> None:
    holds.arm(descriptions=[server.description()])
    assert holds.ask("freeze")["hold_unbroken"]
    os.kill(holds.find().record["drivers"][0]["marks"]["session"]["client"]["pid"], signal.SIGKILL)
    wait_for(lambda: not holds.find().record["status"]["hold_unbroken"])
    assert not server.held()
    thawed = holds.ask("thaw")
    assert (thawed["ok"], thawed["hold_unbroken"], thawed["reason"]) == (True, False, "command")
    assert thawed["error"].count(LOST) == 1
