# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real GT.M databases, copied in mid-life: frozen, under updates, with journals; and damaged ones."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.checks import bounded, owned
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.mounting import mount_options
from marks import slow

from .conftest import Run
from .gtm import DATA, GTM_DIST, Gtm

pytestmark = pytest.mark.root


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Gtm]:
    """Production's database, at work."""
    folder = tmp_path / "production"
    folder.mkdir()
    with Gtm(folder).opened() as made:
        yield made


def frozen_copy(database: Gtm, target: Path) -> Path:
    """A copy of all files, taken while the database is frozen and a writer waits."""
    target.mkdir()
    writer = database.start("for i=1:1 set ^A(i)=$justify(i,200),^B(i)=i")
    try:
        time.sleep(0.3)
        database.run("mupip", "freeze", "-on", "*")
        for path in database.folder.iterdir():
            shutil.copy2(path, target / path.name)
        database.run("mupip", "freeze", "-off", "*")
    finally:
        writer.kill()
        writer.wait()
    return target


def check(run: Run, database: Gtm, mounted: Path, **options: Any) -> dict[str, Any]:
    named = {} if "files" in options else {"gbldir": f"{database.folder}/mumps.gld"}
    description = {"name": "gtm", "gtm_dist": GTM_DIST, **named, **options}
    return run(description, mounts={str(database.folder): mounted})


def said(result: dict[str, Any], *words: str) -> list[list[str]]:
    """The commands of a program's part."""
    return [each["argv"] for each in result["commands"] if all(word in each["argv"] for word in words)]


@pytest.mark.parametrize("journal", [slow(False), True], ids=["plain", "journaled"])
def test_a_frozen_copy_passes(run: Run, tmp_path: Path, isolation: str, journal: bool) -> None:
    folder = tmp_path / "production"
    folder.mkdir()
    with Gtm(folder, journal=journal).opened() as database:
        frozen_copy_passes(run, database, tmp_path, journal)


def frozen_copy_passes(run: Run, database: Gtm, tmp_path: Path, journal: bool) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    before = {path.name: path.read_bytes() for path in copy.glob("*.mjl")}
    live = {path.name: path.read_bytes() for path in database.folder.glob("*.mjl")}
    assert bool(before) == journal
    result = check(run, database, copy)
    assert result["ok"], result
    assert result["detail"] == "2 database files without errors"
    assert result["what"] == f"{database.folder}/mumps.gld"
    assert len(said(result, "integ")) == 2
    assert f".dat is {database.folder}/b.dat\n" in result["output"]
    assert {path.name: path.read_bytes() for path in copy.glob("*.mjl")} == before
    assert {path.name: path.read_bytes() for path in database.folder.glob("*.mjl")} == live
    database.value("^A(1)")  # production's own is as it was: open, and in nobody's way
    again = check(run, database, copy)
    assert again["ok"], again


@pytest.mark.slow
def test_files_and_patterns(run: Run, database: Gtm, tmp_path: Path) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    there = database.folder
    assert check(run, database, copy, files=[f"{there}/**/*.dat"])["detail"] == "2 database files without errors"
    one = check(run, database, copy, files=[f"{there}/b.dat", f"{there}/*.none"])
    assert (one["ok"], one["detail"]) == (True, "1 database file without errors")
    none = check(run, database, copy, files=[f"{there}/*.none"])
    assert (none["ok"], none["detail"]) == (False, f"{there}/*.none: there is no such file in the copy")
    gone = check(run, database, copy, files=[f"{there}/b.dat", f"{there}/c.dat"])
    assert (gone["ok"], gone["detail"]) == (False, f"{there}/c.dat: there is no such file in the copy")


def test_regions(run: Run, database: Gtm, tmp_path: Path) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    (copy / "default.dat").unlink()
    whole = check(run, database, copy)
    assert (whole["ok"], whole["detail"]) == (
        False,
        f"{database.folder}/default.dat: there is no such file in the copy",
    )
    assert check(run, database, copy, regions=["BREG"])["detail"] == "1 database file without errors"
    none = check(run, database, copy, regions=["CREG"])
    assert none["detail"] == f"{database.folder}/mumps.gld has no region CREG"


@pytest.mark.slow
def test_read_only_mounts_are_checked_on_copies(run: Run, database: Gtm, tmp_path: Path) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    before = (copy / "b.dat").read_bytes()
    subprocess.run(["mount", "--bind", copy, copy], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", copy], check=True)
    try:
        result = check(run, database, copy)
    finally:
        subprocess.run(["umount", copy], check=True)
    assert result["ok"], result
    assert (copy / "b.dat").read_bytes() == before
    assert check(run, database, copy, copy=True)["ok"]
    assert (copy / "b.dat").read_bytes() == before
    assert check(run, database, copy)["ok"]
    assert (copy / "b.dat").read_bytes() != before  # its header, so that it can be used


SPAWN = ('x"\nspawn  ;touch ', '\n!"')  # GDE takes away the first sign of what it runs


@pytest.mark.parametrize("copied", [slow(False), True], ids=["in place", "copied"])
def test_names_are_no_commands_of_gde(
    run: Run, database: Gtm, tmp_path: Path, open_folder: Path, isolation: str, copied: bool
) -> None:
    """GDE takes its input for commands, of which one runs others: a name with lines in it must not come to be some."""
    copy = frozen_copy(database, tmp_path / "copy")
    marker = open_folder / "marker"
    open_folder.chmod(0o777)
    begin, end = SPAWN
    hostile = copy / f"{begin}{marker}{end}" / "-rf \x1b[2J$(id)\n.dat"
    hostile.parent.mkdir(parents=True)
    (copy / "b.dat").rename(hostile)
    there = database.folder
    result = check(run, database, copy, files=[f"{there}/x*/**/*.dat"], copy=copied)
    assert not marker.exists()
    assert result["ok"], result
    assert not any("spawn" in word for command in result["commands"] for word in command["argv"])
    assert "\x1b" not in result["output"]
    if isolation == "not shut off":  # a file without a header leaves mupip's semaphore behind there
        return
    overwrite(hostile, 0, 512)
    damaged = check(run, database, copy, files=[f"{there}/x*/**/*.dat"], copy=copied)
    assert not damaged["ok"]
    assert "mupip" in damaged["detail"] and "\x1b" not in damaged["detail"] and "\\x1b[2J" in damaged["detail"]


def test_programs_have_no_rights(run: Run, database: Gtm, tmp_path: Path, open_folder: Path) -> None:
    """Whatever runs in GT.M's place because of what is in a copy."""
    copy = frozen_copy(database, tmp_path / "copy")
    owner = (copy / "b.dat").stat().st_uid
    dist = open_folder / "dist"
    dist.mkdir()
    for path in Path(GTM_DIST).iterdir():
        (dist / path.name).symlink_to(path)
    (dist / "mupip").unlink()
    told = 'test "$(ls -A /run)" = check && echo no sockets; cat /proc/self/status /etc/shadow; ls -ld /proc/[0-9]*; '
    told += "ip link; grep /db-0.dat /proc/self/mountinfo"
    (dist / "mupip").write_text(
        f'#!/bin/sh\n[ "$1" = integ ] && {{ {told}; }}\ngtm_dist={GTM_DIST} exec {GTM_DIST}/mupip "$@"\n'
    )
    (dist / "mupip").chmod(0o755)
    result = check(run, database, copy, gtm_dist=str(dist), files=[f"{database.folder}/b.dat"])
    assert result["ok"], result
    lines = result["output"].splitlines()
    assert "Uid:\t65530\t65530\t65530\t65530" in lines
    assert "Gid:\t65530\t65530\t65530\t65530" in lines
    assert "Groups:\t " in lines
    assert "NoNewPrivs:\t1" in lines
    assert "no sockets" in lines
    for kind in ("Inh", "Prm", "Eff", "Bnd", "Amb"):
        assert f"Cap{kind}:\t0000000000000000" in lines
    assert len([line for line in lines if "/proc/" in line and line.startswith("d")]) < 6  # its own alone
    assert not any("eth" in line for line in lines)
    (mounted,) = [line for line in lines if "/db-0.dat " in line and " - " in line]
    assert "nosuid,nodev,noexec" in mounted
    assert any("/etc/shadow: Permission denied" in line for line in lines)
    assert (copy / "b.dat").stat().st_uid == owner  # it was only shown as the user's
    named = check(run, database, copy, gtm_dist=str(dist), files=[f"{database.folder}/b.dat"], user="daemon")
    assert "Uid:\t1\t1\t1\t1" in named["output"].splitlines()
    root = check(run, database, copy, user="root")
    assert not root["ok"]
    assert root["detail"].startswith("root has all privileges on this host")


@pytest.mark.parametrize("disposable", [True, False])
def test_where_owners_cannot_be_mapped(
    run: Run, database: Gtm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disposable: bool
) -> None:
    """Older kernels: what goes with the drill changes its owner, and anything else is copied."""
    monkeypatch.setattr(owned, "mapped", lambda *_arguments: None)
    copy = frozen_copy(database, tmp_path / "copy")
    os.chown(copy / "b.dat", 0, 0)
    before = (copy / "b.dat").read_bytes()
    result = run(
        {"name": "gtm", "gtm_dist": GTM_DIST, "files": [f"{database.folder}/b.dat"]},
        mounts={str(database.folder): copy},
        disposable=disposable,
    )
    assert result["ok"], result
    assert (copy / "b.dat").stat().st_uid == (65530 if disposable else 0)
    assert ((copy / "b.dat").read_bytes() == before) == (not disposable)


def test_a_host_that_cannot_shut_programs_off_has_to_be_accepted(
    run: Run, database: Gtm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "shut_off", lambda network: ["processes"])
    copy = frozen_copy(database, tmp_path / "copy")
    description = {"name": "gtm", "gtm_dist": GTM_DIST, "files": [f"{database.folder}/b.dat"]}
    refused = run(description, mounts={str(database.folder): copy}, unconfined=False)
    assert not refused["ok"] and refused["commands"] == []
    assert refused["detail"].startswith(
        "programs that read the copy cannot be isolated from this host's processes: run the check as"
    )


def test_a_directory_that_is_too_large_is_not_read(run: Run, database: Gtm, tmp_path: Path) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    os.truncate(copy / "mumps.gld", 1 << 40)
    result = check(run, database, copy)
    assert not result["ok"]
    assert "mumps.gld in the copy has 1099511627776 bytes" in result["detail"]


@pytest.mark.parametrize("kind", ["ext4", slow("xfs"), slow("btrfs")])
def test_on_the_mounts_of_a_drill(
    run: Run, database: Gtm, tmp_path: Path, mounted: Callable[..., Path], kind: str
) -> None:
    """On a device of its own, whose files belong to a user that this host may give to somebody else."""
    folder = mounted(f"mkfs.{kind}", "-q", options=f"loop,{mount_options(kind, True)}")
    copy = frozen_copy(database, folder / "m")
    for path in copy.iterdir():
        os.chown(path, 1234, 1234)
        path.chmod(0o600)
    result = check(run, database, copy)
    assert result["ok"], result
    assert not said(result, "cp")
    assert {(path.stat().st_uid, path.stat().st_gid) for path in copy.iterdir()} == {(1234, 1234)}


def overwrite(path: Path, start: int, length: int) -> None:
    with open(path, "r+b") as stream:
        stream.seek(start)
        stream.write(b"\xa5" * length)


@pytest.mark.slow
def test_damage_is_found(run: Run, database: Gtm, tmp_path: Path) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    size = (copy / "default.dat").stat().st_size
    (copy / "default.dat").rename(copy / "whole")

    def damaged(how: Any) -> dict[str, Any]:
        shutil.copy2(copy / "whole", copy / "default.dat")
        how(copy / "default.dat")
        result = check(run, database, copy)
        assert not result["ok"], result
        assert result["detail"].startswith(f"{database.folder}/default.dat: mupip ")
        return result

    inside = damaged(lambda path: overwrite(path, DATA + 200 * 1024, 64 * 1024))
    assert "mupip integ failed" in inside["detail"]
    assert "%GTM-E-DBBSIZMN, Nature: #DANGER*** " in inside["detail"]
    assert inside["detail"].endswith(" Block too small")
    assert len(said(inside, "integ")) == 2  # the other file is checked all the same
    header = damaged(lambda path: overwrite(path, 0, 512))
    assert "%GTM-E-DBNOTGDS" in header["detail"]
    short = damaged(lambda path: os.truncate(path, size // 2))
    # Which step meets it first depends on where the blocks lie that the step before reads.
    assert any(text in short["detail"] for text in ("File size smaller than block count would", "%GTM-E-DBPREMATEOF"))
    empty = damaged(lambda path: os.truncate(path, 0))
    assert "Error reading from file" in empty["detail"]


@pytest.mark.slow
def test_a_copy_in_mid_write_is_never_called_sound_without_a_look(run: Run, database: Gtm, tmp_path: Path) -> None:
    """Not frozen: it lacks what was in memory, and so blocks that others name."""
    copy = tmp_path / "copy"
    copy.mkdir()
    with database.writer("for i=1:1 set ^A(i)=$justify(i,200),^B(i)=i"):
        time.sleep(0.5)
        for path in database.folder.iterdir():
            shutil.copy2(path, copy / path.name)
    result = check(run, database, copy)
    assert not result["ok"], result
    assert "mupip integ failed" in result["detail"]


def test_gtm_that_is_not_there_and_directories_that_are_damaged(run: Run, database: Gtm, tmp_path: Path) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    none = check(run, database, copy, gtm_dist="/usr/lib/none")
    assert none["detail"] == "there is no mupip in /usr/lib/none: install GT.M there, or correct 'gtm_dist'"
    overwrite(copy / "mumps.gld", 0, 512)
    damaged = check(run, database, copy)
    assert not damaged["ok"]
    assert damaged["detail"].startswith(f"{database.folder}/mumps.gld cannot be read (exit status ")


@pytest.mark.slow
def test_names_with_variables_and_relative_ones(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "pro duction"
    folder.mkdir()
    with Gtm(folder, files=("default.dat", "$where/b.dat"), environment={"where": str(folder)}).opened() as database:
        copy = frozen_copy(database, tmp_path / "copy")
        assert "set its variable in 'environment'" in check(run, database, copy)["detail"]
        result = check(run, database, copy, environment={"where": str(folder)})
        assert (result["ok"], result["detail"]) == (True, "2 database files without errors"), result


@pytest.mark.slow
def test_one_that_takes_too_long_is_ended(run: Run, database: Gtm, tmp_path: Path, open_folder: Path) -> None:
    copy = frozen_copy(database, tmp_path / "copy")
    dist = open_folder / "dist"
    dist.mkdir()
    for path in Path(GTM_DIST).iterdir():
        (dist / path.name).symlink_to(path)
    (dist / "mupip").unlink()
    (dist / "mupip").write_text(
        f'#!/bin/sh\n[ "$1" = integ ] && sleep 600\ngtm_dist={GTM_DIST} exec {GTM_DIST}/mupip "$@"\n'
    )
    (dist / "mupip").chmod(0o755)
    result = check(run, database, copy, gtm_dist=str(dist), timeout=3)
    assert not result["ok"]
    assert "mupip integ" in result["detail"] or "integ -noonline" in result["detail"], result
    assert "took longer than its 3 s" in result["detail"]
    assert result["seconds"] < 15
    assert len(said(result, "rundown")) == 2  # before, and to leave nothing in memory
