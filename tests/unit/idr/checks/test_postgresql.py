# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real PostgreSQL clusters, copied while they run: they recover and pass; damaged ones are found."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.checks import bounded, owned
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.mounting import mount_options
from marks import slow

from ...quiesce.servers import Postgres, as_user, give, new, postgres_program, remove_templates, running
from .conftest import Run

pytestmark = pytest.mark.root


@pytest.fixture(scope="module", autouse=True)
def templates() -> Iterator[None]:
    """Removes what new servers are copied from."""
    yield
    remove_templates()


class Site:
    """Production's server, and the copy of its data folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.there = folder / "srv"
        self.here = folder / "copy"
        for each in (self.there, folder / "socket"):
            each.mkdir()
            give(each, "postgres")
        self.server: Postgres = new(Postgres, self.there / "data", folder / "socket")

    def copy(self) -> None:
        """As a snapshot has it: the server runs, has committed, and has made no checkpoint of it."""
        subprocess.run(["cp", "-a", self.there, self.here], check=True)
        assert (self.here / "data/postmaster.pid").exists()

    def file_of(self, relation: str) -> Path:
        """The copied file of a table or an index."""
        return self.here / "data" / self.server.ask(f"SELECT pg_relation_filepath('{relation}')")


@pytest.fixture
def site(open_folder: Path) -> Site:
    return Site(open_folder)


def fill(server: Postgres) -> None:
    server.ask("CREATE TABLE t (n int PRIMARY KEY, filler text)")
    server.ask("INSERT INTO t SELECT n, repeat('x', 200) FROM generate_series(1, 5000) AS n")


def check(run: Run, site: Site, **options: Any) -> dict[str, Any]:
    description = {"name": "postgresql", "data": f"{site.there}/data", **options}
    return run(description, mounts={str(site.there): site.here})


def test_a_copy_of_a_running_server_recovers_and_passes(run: Run, site: Site, isolation: str) -> None:
    with running(site.server):
        fill(site.server)
        site.copy()
        result = check(run, site)
        assert site.server.ask("SELECT count(*) FROM t") == "5000"  # production's own is as it was
    assert result["ok"], result
    assert result["what"] == f"{site.there}/data"
    assert result["detail"].startswith("PostgreSQL 15 recovered, 3 databases, ")
    assert result["detail"].endswith("no corruption found")
    assert "redo done at" in result["output"]  # it was not stopped before
    assert "database system is shut down" in result["output"]
    assert not (site.here / "data/postmaster.pid").exists()
    again = run({"name": "postgresql"}, mounts={str(site.there): site.here})  # and found without being named
    assert again["ok"], again


def test_limits_in_the_copy_stop_no_check(run: Run, site: Site) -> None:
    with running(site.server):
        fill(site.server)
        site.server.ask("ALTER ROLE postgres SET statement_timeout = 1; ALTER DATABASE postgres SET lock_timeout = 1")
        site.copy()
    result = check(run, site)
    assert result["ok"], result


def test_settings_of_the_copy_reach_nobody(run: Run, site: Site) -> None:
    """A copied server must not write to production's archive, nor listen, nor load what is not there."""
    leak = site.folder / "archive"
    leak.mkdir()
    give(leak, "postgres")
    with running(site.server, "-c", "archive_mode=on", "-c", f"archive_command=cp %p {leak}/%f"):
        fill(site.server)
        for setting in (
            f"archive_command = 'cp %p {leak}/%f'",
            "archive_mode = on",
            "listen_addresses = '*'",
            "port = 5999",
            f"unix_socket_directories = '{leak}'",
            "logging_collector = on",
        ):
            site.server.ask(f"ALTER SYSTEM SET {setting}")
        site.copy()
    before = sorted(os.listdir(leak))
    (site.here / "data/postgresql.conf").write_text("shared_preload_libraries = 'none_such'\n")
    result = check(run, site)
    assert result["ok"], result
    assert sorted(os.listdir(leak)) == before
    assert "5999" not in result["output"]


def test_tablespaces_and_wal_elsewhere_are_those_of_the_copy(run: Run, site: Site) -> None:
    space = site.there / "space"
    space.mkdir()
    give(space, "postgres")
    wal = site.there / "wal"
    shutil.move(site.server.folder / "pg_wal", wal)
    (site.server.folder / "pg_wal").symlink_to(wal)
    with running(site.server):
        site.server.ask(f"CREATE TABLESPACE space LOCATION '{space}'")
        site.server.ask("CREATE TABLE far (n int) TABLESPACE space")
        site.server.ask("INSERT INTO far SELECT generate_series(1, 1000)")
        site.copy()
    before = sorted(path.stat().st_mtime_ns for path in [*space.rglob("*"), *wal.rglob("*")])
    result = check(run, site)
    assert result["ok"], result
    assert sorted(path.stat().st_mtime_ns for path in [*space.rglob("*"), *wal.rglob("*")]) == before
    assert (site.here / "data/pg_wal").readlink() == site.here / "wal"
    assert list((site.here / "space").rglob("PG_15*/*/*"))
    outside = site.here / "data/pg_tblspc/99999"
    outside.symlink_to("/var/lib/elsewhere")
    result = check(run, site)
    assert not result["ok"]
    assert result["detail"].startswith(
        f"{site.there}/data/pg_tblspc/99999 leads to /var/lib/elsewhere, which is on none of the mounted volumes"
    )
    outside.unlink()
    again = check(run, site)
    assert again["ok"], again


@pytest.mark.parametrize("link", ["pg_wal", "pg_tblspc/99999", "pg_stat/below/deep", "base/one"])
def test_links_never_lead_a_server_into_this_host(run: Run, site: Site, link: str) -> None:
    """Relative ones too, which PostgreSQL would follow into whatever this host has there."""
    hosts = site.folder / "hosts"
    with running(site.server):
        site.copy()
    subprocess.run(["cp", "-a", site.here / "data/pg_wal", hosts], check=True)
    before = sorted((path, path.stat().st_mtime_ns) for path in hosts.rglob("*"))
    path = site.here / "data" / link
    path.parent.mkdir(parents=True, exist_ok=True)
    if link == "pg_wal":
        shutil.rmtree(path)
    for target in (os.path.relpath(hosts, path.parent), f"../{'../' * link.count('/')}../hosts", str(hosts)):
        path.symlink_to(target)
        result = check(run, site)
        assert not result["ok"], result
        assert result["detail"].startswith(f"{site.there}/data/{link} leads to {hosts}, which is on none of"), result
        assert not [each for each in result["commands"] if each["argv"][0].endswith("/postgres")]
        path.unlink()
    assert sorted((path, path.stat().st_mtime_ns) for path in hosts.rglob("*")) == before


def test_relative_links_within_the_copy_are_followed(run: Run, site: Site) -> None:
    with running(site.server):
        fill(site.server)
        site.copy()
    shutil.move(site.here / "data/pg_wal", site.here / "wal")
    (site.here / "middle").symlink_to(site.there)  # an absolute one in the middle of the path
    (site.here / "data/pg_wal").symlink_to("../middle/wal")
    result = check(run, site)
    assert result["ok"], result
    assert (site.here / "data/pg_wal").readlink() == site.here / "wal"  # this host would have gone to production's
    assert not (site.there / "wal").exists()


def test_what_postgresql_never_makes_is_refused(run: Run, site: Site) -> None:
    with running(site.server):
        site.copy()
    for make in (os.mkfifo, lambda path: os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 8))):
        make(site.here / "data/pg_stat/\x1b[2Jodd")
        result = check(run, site, timeout=20)
        assert not result["ok"]
        odd = f"{site.there}/data/pg_stat/\\x1b[2Jodd"
        assert result["detail"].startswith(f"{odd} is not a file, directory or link"), result
        (site.here / "data/pg_stat/\x1b[2Jodd").unlink()
    os.truncate(site.here / "data/PG_VERSION", 1 << 40)
    large = check(run, site)
    assert "PG_VERSION in the copy has 1099511627776 bytes" in large["detail"]
    (site.here / "data/PG_VERSION").unlink()
    os.mkfifo(site.here / "data/PG_VERSION")
    fifo = check(run, site, timeout=5)
    assert "is not a PostgreSQL data directory" in fifo["detail"]


def library(site: Site) -> Path:
    """A library in the copy that leaves a file in the data folder where it was loaded: ``pg_stat/...stat``."""
    (folder,) = Path(postgres_program("postgres")).parents[1].glob("lib")
    return Path(shutil.copy(folder / "pg_stat_statements.so", site.here / "evil.so"))


HOSTILE = """
shared_preload_libraries = '{evil}'
session_preload_libraries = '{evil}'
local_preload_libraries = '{evil}'
jit_provider = '{evil}'
dynamic_library_path = '{there}'
archive_mode = on
archive_library = '{evil}'
archive_command = 'touch {marker}'
restore_command = 'touch {marker}; false'
archive_cleanup_command = 'touch {marker}'
recovery_end_command = 'touch {marker}'
ssl = on
ssl_passphrase_command = 'touch {marker}'
log_directory = '{folder}'
logging_collector = on
"""


def test_settings_of_the_copy_run_nothing(run: Run, site: Site, isolation: str) -> None:
    site.folder.chmod(0o777)
    marker = site.folder / "marker"
    with running(site.server):
        fill(site.server)
        site.copy()
    evil = library(site)
    text = HOSTILE.format(evil=evil, there=site.here, marker=marker, folder=site.folder)
    (site.here / "data/postgresql.auto.conf").write_text(text)
    before = sorted(os.listdir(site.folder))
    result = check(run, site)
    assert result["ok"], result
    assert sorted(os.listdir(site.folder)) == before
    assert not list((site.here / "data/pg_stat").glob("pg_stat_statements*"))
    if isolation == "shut off":
        assert (site.here / "data/postgresql.auto.conf").read_text() == text  # it was only hidden
    (site.here / "data/postgresql.auto.conf").unlink(missing_ok=True)
    (site.here / "data/postgresql.auto.conf").symlink_to("postgresql.conf")
    linked = check(run, site)
    assert not linked["ok"] and "postgresql.auto.conf is not a regular file" in linked["detail"]


def test_what_the_database_holds_runs_without_rights(run: Run, site: Site) -> None:
    """A trigger runs a program, and a setting of a role loads a library: neither gains anything."""
    site.folder.chmod(0o777)
    told, setuid = site.folder / "told", site.here / "setuid"
    asked = f"id; grep -h -e NoNew -e Cap /proc/self/status; cat /etc/shadow; kill -0 {os.getpid()}; {setuid}"
    with running(site.server):
        site.server.ask(
            "CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS "
            f"$$ BEGIN COPY (SELECT 1) TO PROGRAM $q${{ {asked}; }} >>{told} 2>&1; true$q$; END $$"
        )
        site.server.ask("CREATE EVENT TRIGGER e ON ddl_command_start EXECUTE FUNCTION e()")
        site.copy()
    subprocess.run(["chown", "-R", "0:0", site.here], check=True)
    shutil.copy("/usr/bin/id", setuid)
    setuid.chmod(0o4755)
    check(run, site)  # pg_amcheck makes its extension, which is where the trigger comes in
    lines = told.read_text().splitlines()
    assert lines[0].startswith("uid=65530 gid=65530"), lines
    assert "NoNewPrivs:\t1" in lines
    assert {line.split()[1] for line in lines if line.startswith("Cap")} == {"0" * 16}
    for end in ("/etc/shadow: Permission denied", "No such process", "setuid: Permission denied"):
        assert any(line.endswith(end) for line in lines), lines
    assert not [line for line in lines if "uid=0" in line]

    subprocess.run(["rm", "-rf", site.here], check=True)
    with running(site.server):
        site.server.ask(f"ALTER ROLE postgres SET session_preload_libraries = '{site.here}/evil.so'")
        site.copy()
    library(site)
    result = check(run, site)
    assert not result["ok"]
    assert "failed to map segment from shared object" in result["detail"], result


def test_a_folder_of_root_makes_nobody_root(run: Run, site: Site) -> None:
    with running(site.server):
        fill(site.server)
        site.copy()
    subprocess.run(["chown", "-R", "0:0", site.here], check=True)
    result = check(run, site)
    assert result["ok"], result
    assert {path.lstat().st_uid for path in site.here.rglob("*")} == {0}  # what is written is its owner's
    refused = check(run, site, user="root")
    assert refused["detail"].startswith("root has all privileges on this host")
    named = check(run, site, user="daemon")
    assert named["ok"], named


def at_an_open_place(site: Site, mount: Path, number: int) -> Path:
    """A mount where other users get to; it ends with the folder of the site."""
    place = site.folder / f"mount{number}"
    place.mkdir()
    subprocess.run(["mount", "--bind", mount, place], check=True)
    return place


def copy_with_a_tablespace(site: Site) -> Path:
    """Makes the copy of a server that has a table in a tablespace beside its data folder; production's place of it."""
    space = site.there / "space"
    space.mkdir()
    give(space, "postgres")
    with running(site.server):
        fill(site.server)
        site.server.ask(f"CREATE TABLESPACE space LOCATION '{space}'")
        site.server.ask("CREATE TABLE far (n int) TABLESPACE space")
        site.copy()
    return space


@pytest.mark.parametrize("disposable", [True, False])
@pytest.mark.parametrize("kind", ["ext4", slow("xfs"), slow("btrfs")])
def test_on_the_mounts_of_a_drill(
    run: Run, site: Site, mounted: Callable[..., Path], kind: str, disposable: bool
) -> None:
    """On devices of their own, data folder, tablespace and a way in that only their owner may go."""
    space = copy_with_a_tablespace(site)
    options = f"loop,{mount_options(kind, True)}"
    data, far = (at_an_open_place(site, mounted(f"mkfs.{kind}", "-q", options=options), n) for n in range(2))
    uid, gid = (site.here / "data").stat().st_uid, (site.here / "data").stat().st_gid
    (data / "closed").mkdir(0o700)
    os.chown(data / "closed", uid, gid)
    subprocess.run(["cp", "-a", site.here / "data", data / "closed"], check=True)
    subprocess.run(["cp", "-a", f"{site.here}/space/.", far], check=True)
    os.chown(far, uid, gid)
    result = run({"name": "postgresql"}, mounts={str(site.there / "x"): data, str(space): far}, disposable=disposable)
    owners = {path.lstat().st_uid for path in [*data.rglob("*"), *far.rglob("*")] if path.name != "lost+found"}
    assert owners == {uid}
    if disposable:
        assert result["ok"], result
        assert not [command for command in result["commands"] if command["argv"][0] == "cp"]
    else:  # the link would have to be set right
        assert not result["ok"]
        assert "mount the volumes where production has them" in result["detail"]


def test_what_production_goes_on_with_is_left_as_it_is(run: Run, site: Site) -> None:
    """The disks of a failover, which are where production had them: no owner and no link is changed."""
    copy_with_a_tablespace(site)
    gone = site.there.with_name("gone")
    site.there.rename(gone)
    site.here.rename(site.there)
    (link,) = (site.there / "data/pg_tblspc").iterdir()
    owner = (site.there / "data").stat().st_uid
    before = link.readlink()
    result = run(
        {"name": "postgresql", "data": f"{site.there}/data"}, mounts={str(site.there): site.there}, disposable=False
    )
    assert result["ok"], result
    assert not [command for command in result["commands"] if command["argv"][0] == "cp"]
    assert link.readlink() == before
    assert {path.lstat().st_uid for path in site.there.rglob("*")} == {owner}


@pytest.mark.parametrize("disposable", [True, False])
def test_where_owners_cannot_be_mapped(run: Run, site: Site, monkeypatch: pytest.MonkeyPatch, disposable: bool) -> None:
    """Older kernels: what goes with the drill changes its owner, and anything else is copied."""
    monkeypatch.setattr(owned, "mapped", lambda *_arguments: None)
    with running(site.server):
        fill(site.server)
        site.copy()
    uid = (site.here / "data").stat().st_uid
    (site.here / "data/setuid").touch()
    (site.here / "data/setuid").chmod(0o4755)
    result = run(
        {"name": "postgresql", "data": f"{site.there}/data"}, mounts={str(site.there): site.here}, disposable=disposable
    )
    assert result["ok"], result
    assert (site.here / "data").stat().st_uid == (65530 if disposable else uid)
    assert (site.here / "data/postmaster.pid").exists() == (not disposable)


def test_the_map_of_tablespaces_leads_nowhere_else(run: Run, site: Site) -> None:
    with running(site.server):
        site.copy()
    for text, why in (
        (f"16400 {site.folder}/hosts\n", f"{site.folder}/hosts is on none of the mounted volumes"),
        ("16400 relative\n", "has the line '16400 relative', which PostgreSQL never writes"),
        (f"16400 {site.there}/none\n", f"leads to {site.there}/none, which is not in the copy"),
    ):
        (site.here / "data/tablespace_map").write_text(text)
        result = check(run, site)
        assert not result["ok"] and why in result["detail"], result


@pytest.mark.usefixtures("open_scratch")
def test_a_folder_of_this_host_that_cannot_be_covered_is_not_risked(
    run: Run, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "shut_off", lambda network: ["mounts", "processes"])
    space = site.there / "space"
    space.mkdir()
    give(space, "postgres")
    with running(site.server):
        site.server.ask(f"CREATE TABLESPACE space LOCATION '{space}'")
        site.copy()
    result = check(run, site)
    assert not result["ok"]
    assert result["detail"].startswith(f"{space} also exists on this host")


def test_a_read_only_mount_is_checked_on_a_copy(run: Run, site: Site) -> None:
    with running(site.server):
        fill(site.server)
        site.copy()
    (site.here / "data/pg_stat_tmp").rmdir()
    (site.here / "data/pg_stat_tmp").symlink_to(site.there / "data/pg_dynshmem")  # which is the copied one's then
    (site.there / "data/pg_dynshmem").rmdir()
    subprocess.run(["mount", "--bind", site.here, site.here], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", site.here], check=True)
    try:
        result = check(run, site)
    finally:
        subprocess.run(["umount", site.here], check=True)
    assert result["ok"], result
    assert (site.here / "data/postmaster.pid").exists()


def overwrite(path: Path, start: int, length: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(start)
        stream.write(b"\xa5" * length)


def test_damaged_tables_and_indexes_are_found(run: Run, site: Site) -> None:
    with running(site.server):
        fill(site.server)
        site.server.ask("CHECKPOINT")
        table, index = (site.server.ask(f"SELECT pg_relation_filepath('{name}')") for name in ("t", "t_pkey"))
        site.copy()
    whole = site.here.with_name("whole")
    site.here.rename(whole)

    def damaged(path: str, start: int, length: int) -> dict[str, Any]:
        subprocess.run(["rm", "-rf", site.here], check=True)
        subprocess.run(["cp", "-a", whole, site.here], check=True)
        overwrite(site.here / "data" / path, start, length)
        result = check(run, site)
        assert not result["ok"], result
        assert "database system is shut down" in result["output"] or "redo" in result["output"]
        return result

    in_table = damaged(table, 8192 * 3 + 7900, 64)  # among the rows of a page
    assert in_table["detail"].startswith("pg_amcheck found damage (exit status 2): "), in_table
    in_index = damaged(index, 8192 * 2 + 4000, 200)
    assert in_index["detail"].startswith("pg_amcheck found damage (exit status 2): "), in_index
    assert not check(run, site)["ok"]
    unseen = check(run, site, amcheck=False)
    assert unseen["ok"]
    assert "not checked for corruption" in unseen["detail"]


def test_checksums_find_what_amcheck_does_not_look_at(run: Run, site: Site) -> None:
    program = [postgres_program("pg_checksums"), "--enable", "-D", str(site.server.folder)]
    subprocess.run(as_user("postgres", program), check=True, capture_output=True, cwd="/")
    with running(site.server):
        fill(site.server)
        site.server.ask("CREATE INDEX hashed ON t USING hash (filler)")
        site.server.ask("CHECKPOINT")
        path = site.file_of("hashed")
        site.copy()
    good = check(run, site)
    assert (good["ok"], good["detail"].endswith("no corruption found, checksums correct")) == (True, True), good
    overwrite(path, 8192 * 3 + 4000, 8)
    bad = check(run, site)
    assert not bad["ok"]
    assert bad["detail"].startswith("pg_checksums found damage (exit status 1): "), bad
    assert check(run, site, checksums=False)["ok"]


def test_a_copy_that_cannot_recover_says_why(run: Run, site: Site) -> None:
    with running(site.server):
        fill(site.server)
        site.copy()
    for path in (site.here / "data/pg_wal").glob("0*"):
        path.unlink()
    lost = check(run, site)
    assert not lost["ok"]
    assert lost["detail"].startswith("PostgreSQL did not start (exit status 1): "), lost
    assert "could not locate" in lost["detail"]
    overwrite(site.here / "data/global/pg_control", 0, 64)
    control = check(run, site)
    assert not control["ok"]
    assert "pg_control" in control["detail"]


def test_what_cannot_be_started_here(run: Run, site: Site) -> None:
    nothing = run({"name": "postgresql"}, mounts={"/srv/m": site.there / "data/base"})
    assert nothing["detail"] == "there is no PostgreSQL data directory on /srv/m: set its path in 'data'"
    with running(site.server):
        site.copy()
    (site.here / "data/standby.signal").touch()
    standby = check(run, site)
    assert "this is a copy of a standby server (standby.signal is in it)" in standby["detail"]
    (site.here / "data/PG_VERSION").write_text("97\n")
    version = check(run, site)
    assert "the copy is from PostgreSQL 97, which is not in /usr/lib/postgresql/97/bin or" in version["detail"]
    (site.here / "data/PG_VERSION").write_text("15\n")
    (site.here / "data/standby.signal").unlink()
    os.chown(site.here, 0, 0)
    site.here.chmod(0o700)
    access = check(run, site)
    assert "cannot access" in access["detail"]
    assert not any(result["ok"] for result in (nothing, standby, version, access))
    site.here.chmod(0o755)
    assert check(run, site)["ok"]


@pytest.mark.slow
def test_one_that_takes_too_long_is_ended(run: Run, site: Site) -> None:
    with running(site.server):
        site.copy()
    programs = site.folder / "bin"
    programs.mkdir()
    for path in Path(postgres_program("postgres")).parent.iterdir():
        (programs / path.name).symlink_to(path)
    (programs / "pg_amcheck").unlink()
    (programs / "pg_amcheck").write_text("#!/bin/sh\ntrap '' TERM\nsleep 600 & wait; sleep 600\n")
    (programs / "pg_amcheck").chmod(0o755)
    result = check(run, site, bin=str(programs), timeout=6)
    assert not result["ok"]
    assert "pg_amcheck" in result["detail"] and "took longer than its 6 s" in result["detail"], result
    assert result["seconds"] < 20
    assert "PostgreSQL's log:" in result["output"]
