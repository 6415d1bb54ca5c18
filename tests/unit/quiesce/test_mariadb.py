# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mariadb driver against a real MariaDB."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings
from marks import slow

from .conftest import Holds, freeze_in_background, is_frozen, mount_image, unmount, wait_for
from .servers import Mariadb, acknowledged, command_lines, committed, load, new, running

pytestmark = pytest.mark.root
NOBODY = Surroundings({})
BEHIND = """#!/bin/sh
# A client whose server has its log on disk up to 1 of 2, and does not answer when it is asked a second time.
while read -r statement; do
    case $statement in
        "SELECT 'end-"*) statement=${statement#*\\'} && echo "${statement%%\\'*}" ;;
        *trx_commit*) printf 'innodb_flush_log_at_trx_commit\\t0\\n' ;;
        *Innodb_lsn*) [ -z "$asked" ] || exec sleep 60
            asked=yes && printf 'Innodb_lsn_flushed\\t1\\nInnodb_lsn_current\\t2\\n' ;;
    esac
done
"""
Build = Callable[..., Any]


@pytest.fixture
def server(open_folder: Path) -> Iterator[Mariadb]:
    with running(new(Mariadb, open_folder / "data", open_folder / "socket")) as made:
        made.create_database()
        yield made


@pytest.fixture
def make_driver(server: Mariadb, build: Build) -> Build:
    def make(marks: dict[str, Any] | None = None, **options: Any) -> Any:
        return build(server.description(**options), marks)

    return make


def test_commits_wait_until_the_thaw(server: Mariadb, make_driver: Build) -> None:
    driver = make_driver()
    driver.prepare()
    assert not server.held()
    assert driver.status() == {"frozen": False}
    driver.freeze()
    assert server.held()
    assert driver.status()["frozen"] is True
    assert driver.lost() == []
    assert driver.thaw() == []
    assert driver.marks == {}
    assert not server.held()
    assert driver.thaw() == []


def refusal(driver: Any) -> str:
    with pytest.raises(DriverError) as caught:
        driver.check(NOBODY)
    return str(caught.value)


def test_the_check_says_what_it_found(server: Mariadb, make_driver: Build, open_folder: Path) -> None:
    version = server.ask("SELECT VERSION()").split("-")[0]
    assert make_driver().check(NOBODY) == f"can freeze MariaDB {version} in {open_folder}/data/"


def test_what_cannot_be_frozen_is_refused_before(server: Mariadb, make_driver: Build, open_folder: Path) -> None:
    assert "/nowhere/mariadb cannot be started" in refusal(make_driver(client="/nowhere/mariadb"))
    assert "there is no user nobody-here" in refusal(make_driver(user="nobody-here"))
    assert "Access denied for user 'postgres'@'localhost'" in refusal(make_driver(user="postgres"))
    assert "ERROR 2002 (HY000): Can't connect to local server" in refusal(make_driver(socket="/nowhere"))
    server.ask("CREATE USER postgres@localhost IDENTIFIED VIA unix_socket")
    told = refusal(make_driver(user="postgres"))
    assert told == "mariadb: postgres@localhost may not start a backup: GRANT RELOAD ON *.* to it"
    server.ask("GRANT RELOAD ON *.* TO postgres@localhost")
    assert make_driver(user="postgres").check(NOBODY).startswith("can freeze MariaDB")
    server.kill()
    assert "ERROR 2002" in refusal(make_driver())


@pytest.mark.parametrize(
    ("version", "number"),
    [
        ("10.6.12-8-MariaDB-enterprise-log", "10.6.12"),
        ("11.4.2-MariaDB-1:11.4.2+maria~deb12", "11.4.2"),
        ("11.4.2-MariaDB-ubu2404", "11.4.2"),
        ("5.5.5-10.11.6-MariaDB-log", "10.11.6"),
        ("12.0-preview-site", "12.0"),
        ("site", "site"),
    ],
)
def test_builders_name_versions_as_they_like(version: str, number: str, open_folder: Path, build: Build) -> None:
    with running(new(Mariadb, open_folder / "data", open_folder / "socket"), f"--version={version}") as server:
        driver = build(server.description())
        assert driver.check(NOBODY) == f"can freeze MariaDB {number} in {open_folder}/data/"


def test_a_server_without_backup_stages_is_refused(server: Mariadb, make_driver: Build, open_folder: Path) -> None:
    """As MySQL and MariaDB before 10.4 answer."""
    client = open_folder / "client"
    client.write_text("#!/bin/bash\nexec mariadb \"$@\" < <(exec sed -u 's/^BACKUP STAGE/BACKUP STEPS/' 2>/dev/null)\n")
    client.chmod(0o755)
    told = refusal(make_driver(client=str(client)))
    assert told.endswith("does not know BACKUP STAGE: MariaDB 10.4 or newer is required")


@pytest.mark.slow
def test_limits_of_a_site_end_no_freeze(open_folder: Path, build: Build) -> None:
    """A statement of the freeze may wait for as long as the driver's timeout, and the session for as long as a hold."""
    limits = ["--max-statement-time=1", "--lock-wait-timeout=1", "--wait-timeout=1", "--idle-transaction-timeout=1"]
    with running(new(Mariadb, open_folder / "data", open_folder / "socket"), *limits) as server:
        server.create_database()
        driver = build(server.description(timeout=10))
        driver.prepare()
        table = subprocess.Popen(server.client_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert table.stdin is not None and table.stdout is not None
        table.stdin.write(
            b"SET max_statement_time = 0; LOCK TABLES a WRITE; SELECT 1; SELECT SLEEP(3); UNLOCK TABLES;\n"
        )
        table.stdin.flush()
        assert table.stdout.readline() == b"1\n"
        begun = time.monotonic()
        driver.freeze()
        assert time.monotonic() - begun > 2
        time.sleep(2)
        assert driver.lost() == []
        assert driver.thaw() == []
        table.kill()
        table.communicate()


def test_a_password_comes_from_the_defaults_file_alone(server: Mariadb, build: Build, open_folder: Path) -> None:
    server.ask("CREATE USER backup@localhost IDENTIFIED BY 'only-in-the-file'; GRANT RELOAD ON *.* TO backup@localhost")
    file = open_folder / "backup.cnf"
    file.write_text(f"[client]\nuser=backup\npassword=only-in-the-file\nsocket={server.socket}\n")
    file.chmod(0o600)
    driver = build({"name": "mariadb", "defaults_file": str(file)})
    assert driver.check(NOBODY).startswith("can freeze MariaDB")
    driver.prepare()
    driver.freeze()
    commands = command_lines()
    assert any(str(file).encode() in command for command in commands)
    assert not any(b"only-in-the-file" in command for command in commands)
    assert driver.thaw() == []


def test_a_session_that_the_client_no_longer_has_is_ended_on_the_server(server: Mariadb, make_driver: Build) -> None:
    driver = make_driver()
    driver.freeze()
    other = make_driver(marks=driver.marks)
    with contextlib.closing(other.connect()) as session:
        assert other.expel(session, driver.marks["session"]["name"]) is False
    wait_for(lambda: not server.held())
    with contextlib.closing(other.connect()) as session:
        assert other.expel(session, driver.marks["session"]["name"]) is True
    (lost,) = driver.thaw()
    assert "the session was lost before the thaw: 'BACKUP STAGE END' failed: ERROR" in lost
    assert driver.marks == {}


@pytest.fixture
def locked_table(server: Mariadb) -> Iterator[None]:
    """Somebody locks a table, which keeps a backup from beginning."""
    session = subprocess.Popen(server.client_command(), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert session.stdin is not None and session.stdout is not None
    session.stdin.write(b"LOCK TABLES a WRITE; SELECT 1;\n")
    session.stdin.flush()
    assert session.stdout.readline() == b"1\n"
    yield
    session.kill()
    session.communicate()


@pytest.mark.usefixtures("locked_table")
def test_a_freeze_that_is_kept_waiting_ends_in_time(server: Mariadb, make_driver: Build) -> None:
    driver = make_driver(timeout=2)
    driver.prepare()
    begun = time.monotonic()
    with pytest.raises(DriverError, match="BACKUP STAGE START was blocked too long by a statement or a table lock"):
        driver.freeze()
    assert time.monotonic() - begun < 2
    driver.thaw()
    assert driver.marks == {}


@pytest.mark.usefixtures("locked_table")
def test_a_freeze_that_hangs_can_be_cancelled(server: Mariadb, make_driver: Build) -> None:
    driver = make_driver(timeout=20)
    driver.prepare()
    ended = freeze_in_background(driver)
    wait_for(lambda: "BACKUP STAGE START" in server.ask("SHOW FULL PROCESSLIST"))
    begun = time.monotonic()
    driver.cancel()
    driver.thaw()
    assert time.monotonic() - begun < 4
    assert ended().endswith("failed: it was cancelled")
    assert driver.marks == {}
    assert "BACKUP STAGE" not in server.ask("SHOW FULL PROCESSLIST")


@pytest.mark.parametrize(
    ("engine", "settings"),
    [
        ("InnoDB", []),
        slow("InnoDB", ["--innodb-flush-log-at-trx-commit=0"]),
        slow("Aria", []),
        slow("MyISAM", []),
    ],
)
def test_a_snapshot_in_the_hold_has_just_what_was_committed(
    engine: str, settings: list[str], make_open_filesystem: Callable[..., Path], holds: Holds, open_folder: Path
) -> None:
    mount = make_open_filesystem("btrfs", 512)
    subprocess.run(["btrfs", "-q", "subvolume", "create", mount / "live"], check=True)
    with running(new(Mariadb, mount / "live" / "data", open_folder / "socket"), *settings) as server:
        server.create_database(f"ENGINE={engine}")
        holds.arm(descriptions=[server.description()])
        with load(server) as loads:
            frozen = holds.ask("freeze")
            assert frozen["ok"], frozen["error"]
            time.sleep(0.1)  # for the clients to take note of the last commits
            before = acknowledged(loads)
            time.sleep(0.5)
            subprocess.run(["btrfs", "-q", "subvolume", "snapshot", mount / "live", mount / "snapshot"], check=True)
            assert acknowledged(loads) == before
            assert holds.ask("thaw")["hold_unbroken"]
            wait_for(lambda: all(now > then for now, then in zip(acknowledged(loads), before, strict=True)))
    (open_folder / "other").mkdir()
    with running(Mariadb(mount / "snapshot" / "data", open_folder / "other" / "socket")) as copy:
        assert copy.ask("CHECK TABLE test.a, test.b").count("OK") == 2
        if engine == "InnoDB":
            assert committed(copy) == before
        else:
            assert_without_transactions(copy, before)


def test_what_does_not_get_to_the_disk_is_no_hold(open_folder: Path, build: Build) -> None:
    careless = ["--innodb-flush-log-at-trx-commit=0", "--innodb-flush-log-at-timeout=600"]
    with running(new(Mariadb, open_folder / "data", open_folder / "socket"), *careless) as server:
        server.create_database()
        server.ask("INSERT INTO test.a VALUES (1, 1, '')")
        driver = build(server.description(timeout=1))
        with pytest.raises(DriverError, match="set innodb_flush_log_at_trx_commit to 1"):
            driver.freeze()
        assert driver.thaw() == []
        assert not server.held()


def test_what_does_not_get_to_the_disk_is_told_even_if_the_last_question_takes_too_long(
    open_folder: Path, build: Build
) -> None:
    client = open_folder / "client"
    client.write_text(BEHIND, encoding="utf-8")
    client.chmod(0o755)
    driver = build({"name": "mariadb", "client": str(client), "timeout": 1})
    with pytest.raises(DriverError, match="commits are not on disk yet: set innodb_flush_log_at_trx_commit to 1"):
        driver.freeze()


def assert_without_transactions(copy: Mariadb, before: list[int]) -> None:
    """What was acknowledged is there, and at most a row more of each client whose insert the hold kept waiting."""
    for number, least in enumerate(before):
        first, second = (int(copy.ask(f"SELECT count(*) FROM {table} WHERE client = {number}")) for table in "ab")
        assert least <= second <= first <= least + 1


def test_with_its_filesystem_frozen(make_open_filesystem: Callable[..., Path], holds: Holds, open_folder: Path) -> None:
    mount = make_open_filesystem("ext4", 320)
    image, mounted = open_folder / "copy.img", open_folder / "copy"
    with running(new(Mariadb, mount / "data", mount / "socket")) as server:
        server.create_database()
        holds.arm(descriptions=[server.description(), {"name": "filesystem", "mounts": [str(mount)]}])
        with load(server) as loads:
            frozen = holds.ask("freeze")
            assert frozen["ok"], frozen["error"]
            assert is_frozen(mount)
            before = acknowledged(loads)
            subprocess.run(["cp", "--sparse=always", mount.with_suffix(".img"), image], check=True)
            thawed = holds.ask("thaw")
            assert thawed["hold_unbroken"], thawed["error"]
            wait_for(lambda: all(now > then for now, then in zip(acknowledged(loads), before, strict=True)))
    mount_image(image, mounted)
    try:
        (open_folder / "other").mkdir()
        with running(Mariadb(mounted / "data", open_folder / "other" / "socket")) as copy:
            assert committed(copy) == before
    finally:
        unmount(mounted)


@pytest.mark.slow
def test_a_killed_holder_thaws_with_its_filesystem(
    make_open_filesystem: Callable[..., Path], holds: Holds, open_folder: Path
) -> None:
    mount = make_open_filesystem("xfs")
    with running(new(Mariadb, mount / "data", mount / "socket")) as server:
        server.create_database()
        holds.arm(descriptions=[server.description(), {"name": "filesystem", "mounts": [str(mount)]}])
        assert holds.ask("freeze")["ok"]
        assert is_frozen(mount)
        holds.kill_holder()
        holds.wait_for_partner()
        assert not is_frozen(mount)
        assert not server.held()
