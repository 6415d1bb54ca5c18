# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The postgresql driver against a real PostgreSQL."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings
from marks import slow

from . import servers
from .conftest import Holds, freeze_in_background, is_frozen, mount_image, thaw_hard, unmount, wait_for
from .servers import Postgres, acknowledged, command_lines, committed, create_tables, load, new, running

pytestmark = pytest.mark.root
NOBODY = Surroundings({})
Build = Callable[..., Any]


@pytest.fixture
def socket(open_folder: Path) -> Path:
    folder = open_folder / "socket"
    folder.mkdir()
    servers.give(folder, "postgres")
    return folder


@pytest.fixture
def cluster(open_folder: Path, socket: Path) -> Iterator[Postgres]:
    with running(new(Postgres, open_folder / "data", socket)) as server:
        yield server


@pytest.fixture
def make_driver(cluster: Postgres, build: Build) -> Build:
    def make(marks: dict[str, Any] | None = None, **options: Any) -> Any:
        return build(cluster.description(**options), marks)

    return make


def test_backup_mode_from_freeze_to_thaw(cluster: Postgres, make_driver: Build) -> None:
    driver = make_driver()
    driver.run_id = "r1"
    driver.prepare()
    assert driver.status() == {"frozen": False}
    driver.freeze()
    assert driver.status()["frozen"] is True
    cluster.ask("CREATE TABLE t AS SELECT 1")  # nothing waits
    assert driver.lost() == []
    assert driver.thaw() == []
    assert re.search(r"^LABEL: openisb r1$", driver.result["backup_label"], re.MULTILINE)
    assert (driver.marks, cluster.held()) == ({}, False)
    assert driver.thaw() == []


def test_the_checkpoint_is_made_before_the_freeze(cluster: Postgres, make_driver: Build) -> None:
    driver = make_driver()
    before = cluster.ask("SELECT checkpoints_req FROM pg_stat_bgwriter")
    driver.prepare()
    wait_for(lambda: cluster.ask("SELECT checkpoints_req FROM pg_stat_bgwriter") != before)


def test_the_check_says_what_it_found(cluster: Postgres, make_driver: Build, open_folder: Path) -> None:
    version = cluster.ask("SHOW server_version").split()[0]
    assert make_driver().check(NOBODY) == f"can freeze PostgreSQL {version} in {open_folder}/data"
    space = open_folder / "space"
    space.mkdir()
    servers.give(space, "postgres")
    cluster.ask(f"CREATE TABLESPACE s LOCATION '{space}'")
    assert make_driver().check(NOBODY).endswith(f"/data, with tablespaces in {space}")
    assert not cluster.held()


def refusal(driver: Any) -> str:
    with pytest.raises(DriverError) as caught:
        driver.check(NOBODY)
    return str(caught.value)


def test_what_cannot_be_frozen_is_refused_before(cluster: Postgres, make_driver: Build) -> None:
    assert "/nowhere/psql cannot be started" in refusal(make_driver(psql="/nowhere/psql", user="root"))
    assert "there is no user nobody-here" in refusal(make_driver(user="nobody-here"))
    assert 'role "root" does not exist' in refusal(make_driver(user="root"))
    assert "failed: No such file or directory" in refusal(make_driver(socket="/nowhere"))
    assert "failed: No such file or directory" in refusal(make_driver(port=1))
    assert 'database "nope" does not exist' in refusal(make_driver(database="nope"))
    cluster.kill()
    assert "failed: No such file or directory" in refusal(make_driver())


def test_a_role_that_may_not_is_told_what_it_needs(cluster: Postgres, make_driver: Build, open_folder: Path) -> None:
    (cluster.folder / "pg_hba.conf").write_text("local all postgres peer\nlocal all all scram-sha-256\n")
    cluster.ask("SELECT pg_reload_conf()")
    cluster.ask("CREATE ROLE backup LOGIN PASSWORD 'only-in-the-file'")
    passwords = open_folder / "passwords"
    passwords.write_text("*:*:*:backup:only-in-the-file\n")
    passwords.chmod(0o600)
    assert "no password supplied" in refusal(make_driver(role="backup"))
    driver = make_driver(role="backup", password_file=str(passwords), user="root")
    told = refusal(driver)
    assert "role backup may not start and stop backups: GRANT EXECUTE ON FUNCTION" in told
    grant = told.partition(": GRANT")[2].partition(" in database")[0]
    cluster.ask(f"GRANT{grant}")
    told = refusal(driver)
    assert "role backup may not make a checkpoint" in told
    cluster.ask(f"GRANT{told.partition(': GRANT')[2]}")
    assert driver.check(NOBODY).startswith("can freeze PostgreSQL")
    driver.prepare()
    driver.freeze()
    commands = command_lines()
    assert any(b"psql" in command for command in commands)
    assert not any(b"only-in-the-file" in command for command in commands)
    assert driver.thaw() == []


@pytest.fixture
def client(open_folder: Path) -> Callable[[str, str], str]:
    """Makes a psql through which the server hears, and answers, what it does not say by itself."""

    def make(heard: str, answered: str) -> str:
        path = open_folder / "psql"
        path.write_text(f"#!/bin/sh\nsed -u '{heard}' | psql \"$@\" 2>&1 | sed -u '{answered}'\n")
        path.chmod(0o755)
        return str(path)

    return make


@pytest.mark.parametrize(
    ("version", "number"),
    [("15.6 (Debian 15.6-0+deb12u1)", "15.6"), ("16beta1", "16beta1"), ("15.6.0 (EnterpriseDB)", "15.6.0"), ("", "")],
)
def test_builders_name_versions_as_they_like(
    version: str, number: str, make_driver: Build, client: Callable[[str, str], str]
) -> None:
    psql = client("", f's/"version" : "[^"]*"/"version" : "{version}"/')
    assert make_driver(psql=psql).check(NOBODY).startswith(f"can freeze PostgreSQL {number} in ")


def test_a_server_without_the_functions_is_refused(make_driver: Build, client: Callable[[str, str], str]) -> None:
    told = refusal(make_driver(psql=client("s/pg_backup_start(/pg_start_backup(/", "s/^15[.].*/14.11/")))
    assert told == "postgresql: version 14.11 has no pg_backup_start: 15 or newer is required"


def test_limits_of_a_site_end_no_hold(open_folder: Path, socket: Path, build: Build) -> None:
    with running(new(Postgres, open_folder / "data", socket)) as server:
        for name in (
            "statement_timeout",
            "lock_timeout",
            "idle_session_timeout",
            "idle_in_transaction_session_timeout",
        ):
            server.ask(f"ALTER ROLE postgres SET {name} = '500ms'")
        driver = build(server.description())
        driver.prepare()
        time.sleep(1)
        driver.freeze()
        time.sleep(1)
        assert driver._session is not None
        limits = driver._session.run("SELECT name FROM pg_settings WHERE name ~ 'timeout' AND setting = '500'", 5)
        assert limits == []
        assert driver.lost() == []
        assert driver.thaw() == []


def test_a_service_says_how_to_connect(cluster: Postgres, build: Build, open_folder: Path) -> None:
    services = open_folder / "services"
    services.write_text(f"[mine]\nhost={cluster.socket}\ndbname=template1\nuser=postgres\n")
    driver = build({"name": "postgresql", "service": "mine", "service_file": str(services)})
    assert driver.check(NOBODY).startswith("can freeze PostgreSQL")


def test_a_cluster_that_knows_no_backup_is_refused(open_folder: Path, socket: Path, build: Build) -> None:
    with running(
        new(Postgres, open_folder / "data", socket), "-c", "wal_level=minimal", "-c", "max_wal_senders=0"
    ) as it:
        assert "wal_level is 'minimal'" in refusal(build(it.description()))


def test_a_standby_is_refused(open_folder: Path, socket: Path, build: Build) -> None:
    server = new(Postgres, open_folder / "data", socket)
    (server.folder / "standby.signal").touch()
    with running(server):
        assert "this is a standby server" in refusal(build(server.description()))


def test_a_session_that_the_server_ended_breaks_the_hold(cluster: Postgres, make_driver: Build) -> None:
    driver = make_driver()
    driver.freeze()
    cluster.ask("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'openisb-%'")
    (lost,) = driver.thaw()
    assert "the session was lost before the thaw: 'SELECT to_json" in lost
    assert "terminating connection due to administrator command" in lost
    assert driver.marks == {}


@pytest.fixture
def stuck_checkpointer(cluster: Postgres) -> Iterator[Callable[[], None]]:
    """Has checkpoints never end, and so no backup begin."""
    process = int(cluster.ask("SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'"))
    yield lambda: os.kill(process, signal.SIGSTOP)
    os.kill(process, signal.SIGCONT)


def test_a_freeze_that_hangs_can_be_cancelled(
    cluster: Postgres, make_driver: Build, stuck_checkpointer: Callable[[], None]
) -> None:
    driver = make_driver(timeout=20)
    driver.prepare()
    stuck_checkpointer()
    ended = freeze_in_background(driver)
    wait_for(lambda: "pg_backup_start" in cluster.ask("SELECT query FROM pg_stat_activity WHERE state = 'active'"))
    begun = time.monotonic()
    driver.cancel()
    driver.thaw()
    assert time.monotonic() - begun < 3
    assert ended().endswith("failed: it was cancelled")
    assert (driver.marks, cluster.held()) == ({}, False)


def test_a_freeze_that_takes_too_long_is_ended(
    cluster: Postgres, make_driver: Build, stuck_checkpointer: Callable[[], None]
) -> None:
    driver = make_driver(timeout=0.5)
    driver.prepare()
    stuck_checkpointer()
    with pytest.raises(DriverError, match=r"postgresql: 'SELECT pg_backup_start.* it took longer than 0.5 s"):
        driver.freeze()
    driver.thaw()
    assert (driver.marks, cluster.held()) == ({}, False)


def test_a_checkpoint_that_takes_too_long_is_no_hold(
    cluster: Postgres, make_driver: Build, stuck_checkpointer: Callable[[], None]
) -> None:
    stuck_checkpointer()
    driver = make_driver(checkpoint_timeout=0.5)
    assert driver.patience() == 10.5
    with pytest.raises(DriverError, match="postgresql: 'CHECKPOINT' failed: it took longer than 0.5 s"):
        driver.prepare()


def test_the_hold_keeps_the_label(cluster: Postgres, holds: Holds) -> None:
    holds.arm(descriptions=[cluster.description()])
    holds.ask("freeze")
    thawed = holds.ask("thaw")
    assert thawed["hold_unbroken"] is True
    assert "LABEL: openisb r1\n" in thawed["drivers"][0]["backup_label"]


@pytest.fixture
def on_btrfs(make_open_filesystem: Callable[..., Path], socket: Path) -> Iterator[Postgres]:
    """A cluster on a filesystem that makes snapshots, each of one moment."""
    mount = make_open_filesystem("btrfs", 512)
    subprocess.run(["btrfs", "-q", "subvolume", "create", mount / "live"], check=True)
    with running(new(Postgres, mount / "live" / "data", socket)) as server:
        create_tables(server)
        yield server


def snapshot(server: Postgres) -> Path:
    """The folder of the server's data in a snapshot that was just made."""
    live = server.folder.parent
    taken = live.with_name(f"snapshot-{time.monotonic_ns()}")
    subprocess.run(["btrfs", "-q", "subvolume", "snapshot", live, taken], check=True)
    return taken / server.folder.name


def copy_of(folder: Path, socket: Path) -> Postgres:
    (folder / "postmaster.pid").unlink()
    other = socket.with_name("other")
    other.mkdir()
    servers.give(other, "postgres")
    return Postgres(folder, other)


def test_a_snapshot_in_the_hold_starts_with_all_that_was_committed(
    on_btrfs: Postgres, holds: Holds, socket: Path
) -> None:
    holds.arm(descriptions=[on_btrfs.description()])
    with load(on_btrfs) as loads:
        assert holds.ask("freeze")["ok"]
        before = acknowledged(loads)
        folder = snapshot(on_btrfs)
        after = acknowledged(loads)
        assert holds.ask("thaw")["hold_unbroken"]
    with running(copy_of(folder, socket)) as copy:
        rows = committed(copy)
        assert "database system was not properly shut down; automatic recovery in progress" in copy.log()
    assert all(low <= there <= high + 1 for low, there, high in zip(before, rows, after, strict=True))


def test_with_the_label_a_copy_takes_archived_wal(
    make_open_filesystem: Callable[..., Path], socket: Path, open_folder: Path, build: Build
) -> None:
    mount, archive = make_open_filesystem("btrfs", 512), open_folder / "archive"
    archive.mkdir()
    servers.give(archive, "postgres")
    subprocess.run(["btrfs", "-q", "subvolume", "create", mount / "live"], check=True)
    archiving = ["-c", "archive_mode=on", "-c", f"archive_command=cp %p {archive}/%f"]
    with running(new(Postgres, mount / "live" / "data", socket), *archiving) as server:
        create_tables(server)
        driver = build(server.description())
        with load(server) as loads:
            driver.freeze()
            folder = snapshot(server)
            driver.thaw()
            then = acknowledged(loads)
            wait_for(lambda: all(now > before + 20 for now, before in zip(acknowledged(loads), then, strict=True)))
        last = server.ask("SELECT pg_walfile_name(pg_switch_wal())")
        wait_for((archive / last).exists, 20)
        rows = committed(server)
    put_label(folder, driver)
    assert_does_not_start(copy_with_label(folder, socket))
    (folder / "recovery.signal").touch()
    for part in (folder / "pg_wal").iterdir():
        shutil.rmtree(part) if part.is_dir() else part.unlink()
    (folder / "pg_wal" / "archive_status").mkdir()
    for path in (folder / "recovery.signal", folder / "pg_wal" / "archive_status"):
        servers.give(path, "postgres")
    with running(copy_of(folder, socket), "-c", f"restore_command=cp {archive}/%f %p") as copy:
        assert committed(copy) == rows


def put_label(folder: Path, driver: Any) -> None:
    label = folder / "backup_label"
    label.write_text(driver.result["backup_label"])
    servers.give(label, "postgres")


def copy_with_label(folder: Path, socket: Path) -> Postgres:
    """A copy of the copy in ``folder``, which has a label and no more."""
    other = socket.with_name("labelled")
    subprocess.run(["cp", "-a", folder, other], check=True)
    (other / "postmaster.pid").unlink()
    return Postgres(other, socket)


def assert_does_not_start(server: Postgres) -> None:
    with pytest.raises(AssertionError, match="WAL ends before end of online backup"), running(server):
        pass


@pytest.mark.slow
def test_the_modules_freeze_and_thaw(cluster: Postgres, play: Build, holds: Holds) -> None:
    common = {"run_id": "r1", "run_dir": holds.run_dir}

    def quiesce(state: str, **options: Any) -> dict[str, Any]:
        return {"openisb.backup.quiesce": {**common, "state": state, **options}}

    armed = quiesce("armed", drivers=[cluster.description()])
    planned, armed, frozen, thawed, absent = play(
        [{**armed, "check_mode": True}, armed, quiesce("frozen"), quiesce("thawed"), quiesce("absent")]
    )
    assert planned["checks"][0]["message"].startswith("can freeze PostgreSQL")
    assert armed["checks"] == planned["checks"]
    assert frozen["hold"]["hold_unbroken"]
    assert thawed["hold"]["hold_unbroken"]
    assert "LABEL: openisb r1\n" in thawed["hold"]["drivers"][0]["backup_label"]
    assert absent["hold"]["state"] == "absent"
    assert not cluster.held()


@pytest.mark.parametrize("kind", [slow("ext4"), "xfs"])
def test_with_its_filesystem_frozen(
    kind: str, make_open_filesystem: Callable[..., Path], holds: Holds, open_folder: Path
) -> None:
    mount = make_open_filesystem(kind, 320)
    socket = mount / "socket"  # PostgreSQL is thawed when its filesystem has been
    socket.mkdir()
    servers.give(socket, "postgres")
    image, mounted = open_folder / "copy.img", open_folder / "copy"
    with running(new(Postgres, mount / "data", socket)) as server:
        create_tables(server)
        holds.arm(descriptions=[server.description(), {"name": "filesystem", "mounts": [str(mount)]}])
        with load(server) as loads:
            before = acknowledged(loads)
            frozen = holds.ask("freeze")
            assert frozen["ok"], frozen["error"]
            assert is_frozen(mount)
            at_most = acknowledged(loads)
            subprocess.run(["cp", "--sparse=always", mount.with_suffix(".img"), image], check=True)
            thawed = holds.ask("thaw")
            assert thawed["hold_unbroken"], thawed["error"]
            assert thawed["drivers"][0]["backup_label"]
            wait_for(lambda: all(now > then for now, then in zip(acknowledged(loads), at_most, strict=True)))
    mount_image(image, mounted) if kind == "ext4" else mount_xfs(image, mounted)
    try:
        with running(copy_of(mounted / "data", open_folder / "socket")) as copy:
            rows = committed(copy)
    finally:
        unmount(mounted)
    assert all(low <= there <= high + 1 for low, there, high in zip(before, rows, at_most, strict=True))


@pytest.fixture
def on_ext4(make_open_filesystem: Callable[..., Path], socket: Path) -> Iterator[tuple[Postgres, Path]]:
    mount = make_open_filesystem("ext4", 320)
    with running(new(Postgres, mount / "data", socket)) as server:
        yield server, mount
        thaw_hard(mount)


def test_a_thaw_on_a_frozen_filesystem_is_bounded(on_ext4: tuple[Postgres, Path], build: Build) -> None:
    server, mount = on_ext4
    driver = build(server.description(timeout=1))
    driver.freeze()
    subprocess.run(["fsfreeze", "--freeze", mount], check=True)
    begun = time.monotonic()
    with pytest.raises(DriverError, match="the server does not end the session"):
        driver.thaw()
    assert time.monotonic() - begun < 5
    subprocess.run(["fsfreeze", "--unfreeze", mount], check=True)
    assert "it took longer than 1 s" in driver.thaw()[0]
    assert not server.held()


@pytest.mark.slow
def test_a_killed_holder_thaws_with_its_filesystem(on_ext4: tuple[Postgres, Path], holds: Holds) -> None:
    server, mount = on_ext4
    holds.arm(descriptions=[server.description(), {"name": "filesystem", "mounts": [str(mount)]}])
    assert holds.ask("freeze")["ok"]
    assert is_frozen(mount)
    holds.kill_holder()
    holds.wait_for_partner()
    assert not is_frozen(mount)
    assert not server.held()
    server.ask("CREATE TABLE t AS SELECT 1")


def mount_xfs(image: Path, mount: Path) -> None:
    mount.mkdir()
    subprocess.run(["mount", "-o", "loop,nouuid", str(image), str(mount)], check=True)
