# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that have to be there, on mounts that stand for production's."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.checks import bounded
from ansible_collections.openisb.backup.plugins.module_utils.checks.beneath import open_beneath
from ansible_collections.openisb.backup.plugins.module_utils.checks.errors import CheckFailed
from ansible_collections.openisb.backup.plugins.module_utils.checks.places import Places

from .conftest import Run


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What production has at /srv/files."""
    folder = tmp_path / "mnt"
    (folder / "deep" / "deeper").mkdir(parents=True)
    for name in ("a.dat", "b.dat", "deep/c.dat", "deep/deeper/d.txt", "wild[1].dat"):
        (folder / name).write_text(f"this is {name}")
        os.utime(folder / name, (1_700_000_000, 1_700_000_000))
    return folder


def check(run: Run, copy: Path, *paths: Any, **options: Any) -> dict[str, Any]:
    return run({"name": "files", "paths": list(paths), **options}, mounts={"/srv/files": copy})


def sha256(name: str) -> str:
    return hashlib.sha256(f"this is {name}".encode()).hexdigest()


def test_paths_and_patterns_are_hashed(run: Run, copy: Path) -> None:
    result = check(run, copy, "/srv/files/a.dat", "/srv/files/deep/*.dat", "/srv/files/**/*.txt")
    assert (result["ok"], result["kind"]) == (True, "files")
    assert result["what"] == "/srv/files/a.dat, /srv/files/deep/*.dat, /srv/files/**/*.txt"
    assert result["files"] == [
        {"path": f"/srv/files/{name}", "size": len(f"this is {name}"), "sha256": sha256(name)}
        for name in ("a.dat", "deep/c.dat", "deep/deeper/d.txt")
    ]
    assert result["detail"] == "3 files, 56 bytes"


def test_what_is_missing_is_named(run: Run, copy: Path) -> None:
    result = check(run, copy, "/srv/files/*.pdf", "/srv/files/a.dat", "/srv/files/none")
    assert not result["ok"]
    assert result["detail"] == "/srv/files/*.pdf: there is no such file in the copy (and 1 more)"
    assert "/srv/files/none: there is no such file in the copy" in result["output"]
    assert [file["path"] for file in result["files"]] == ["/srv/files/a.dat"]
    elsewhere = check(run, copy, "/srv/other/a.dat")
    assert elsewhere["detail"] == (
        "/srv/other/a.dat is on none of the mounted volumes (/srv/files): correct the path, or mount its volume too"
    )


def test_conditions(run: Run, copy: Path) -> None:
    good = {"path": "/srv/files/a.dat", "sha256": sha256("a.dat"), "min_size": 13, "newer_than": "2023-11-14T22:13:19Z"}
    assert check(run, copy, good)["ok"]
    other = check(run, copy, {**good, "sha256": sha256("b.dat")})
    assert other["detail"] == f"/srv/files/a.dat is not the expected file: its SHA-256 is {sha256('a.dat')}"
    small = check(run, copy, {**good, "min_size": 14})
    assert small["detail"] == "/srv/files/a.dat has 13 bytes, fewer than the expected 14"
    old = check(run, copy, {**good, "newer_than": 1_700_000_000})
    assert old["detail"] == (
        "/srv/files/a.dat was last changed at 2023-11-14T22:13:20Z, not after 2023-11-14T22:13:20Z"
    )
    assert not any(result["ok"] for result in (other, small, old))


def test_hashing_is_bounded_but_for_what_is_compared(run: Run, copy: Path) -> None:
    result = check(run, copy, "/srv/files/*.dat", max_files=1)
    assert [bool(file["sha256"]) for file in result["files"]] == [True, False, False]
    assert result["detail"].endswith("2 of them beyond the limits and not hashed")
    result = check(run, copy, "/srv/files/*.dat", {"path": "/srv/files/b.dat", "sha256": sha256("b.dat")}, max_bytes=1)
    assert result["ok"]
    assert [file["sha256"] for file in result["files"]] == ["", sha256("b.dat"), ""]
    result = check(run, copy, {"path": "/srv/files/b.dat", "sha256": sha256("a.dat")}, max_bytes=1)
    assert not result["ok"]


def test_links_lead_to_the_copy_and_never_to_this_host(run: Run, copy: Path, tmp_path: Path) -> None:
    (tmp_path / "host").write_text("a file of this host")
    (copy / "within").symlink_to("/srv/files/deep/c.dat")
    (copy / "beside").symlink_to("deep/c.dat")
    (copy / "out").symlink_to("../host")
    (copy / "away").symlink_to("/etc/hostname")
    (copy / "folder").symlink_to("/etc")
    (copy / "circle").symlink_to("/srv/files/circle")
    for name in ("within", "beside"):
        result = check(run, copy, f"/srv/files/{name}")
        assert result["ok"], result
        assert result["files"][0]["path"] == "/srv/files/deep/c.dat"
    for name, why in (
        ("out", "out leads to /srv/host, which is on none of the mounted volumes"),
        ("away", "away leads to /etc/hostname, which is on none"),
        ("folder/hostname", "folder leads to /etc, which is on none"),
        ("circle", "circle"),
    ):
        result = check(run, copy, f"/srv/files/{name}")
        assert (result["ok"], result["files"]) == (False, [])
        assert why in result["detail"]


def test_links_in_the_middle_of_a_path_are_followed_as_production_would(run: Run, copy: Path, tmp_path: Path) -> None:
    """Absolute ones lead below the mounts here, also where this host has such a path; and back again."""
    beside = tmp_path / "beside"
    (beside / "real").mkdir(parents=True)
    (beside / "real/e.dat").write_text("this is e.dat")
    (copy / "short").symlink_to("/srv/files/deep")
    (copy / "over").symlink_to("/srv/beside/link")
    (beside / "link").symlink_to("./real/../real")
    (copy / "deep/up").symlink_to("../../beside/real/e.dat")
    mounts = {"/srv/files": copy, "/srv/beside": beside}
    (tmp_path / "srv").mkdir()
    for asked, real in (
        ("/srv/files/short/c.dat", "/srv/files/deep/c.dat"),
        ("/srv/files/over/e.dat", "/srv/beside/real/e.dat"),
        ("/srv/files/short/up", "/srv/beside/real/e.dat"),
    ):
        result = run({"name": "files", "paths": [asked]}, mounts=mounts)
        assert result["ok"], result
        assert [file["path"] for file in result["files"]] == [real]
    places = Places({there: str(here) for there, here in mounts.items()})
    assert places.resolve(f"{copy}/short/up") == f"{beside}/real/e.dat"
    assert places.resolve(f"{copy}/over/none/../e.dat") == f"{beside}/real/e.dat"
    # A folder of this host that has the same path as one of production's is no part of the copy.
    (copy / "host").symlink_to(f"{tmp_path}/srv")
    with pytest.raises(CheckFailed, match="which is on none of the mounted volumes"):
        places.resolve(f"{copy}/host/below")


def test_what_is_exchanged_for_a_link_is_not_opened(copy: Path, tmp_path: Path) -> None:
    """Between the look at a path and its use; and what is no file keeps nobody."""
    (tmp_path / "host").mkdir()
    (tmp_path / "host/c.dat").write_text("a file of this host")
    places = Places({"/srv/files": str(copy)})
    path = places.resolve(f"{copy}/deep/c.dat")
    os.close(places.open(path, os.O_RDONLY))
    (copy / "deep").rename(copy / "gone")
    (copy / "deep").symlink_to(tmp_path / "host")
    with pytest.raises(NotADirectoryError):
        places.open(path, os.O_RDONLY)
    (copy / "a.dat").unlink()
    os.mkfifo(copy / "a.dat")
    os.close(places.open(f"{copy}/a.dat", os.O_RDONLY))
    with pytest.raises(ValueError, match="has not been resolved"):
        open_beneath(str(copy), "../host/c.dat", os.O_RDONLY)


def test_what_is_no_file_is_none(run: Run, copy: Path) -> None:
    os.mkfifo(copy / "fifo.dat")
    (copy / "folder.dat").mkdir()
    result = check(run, copy, "/srv/files/*.dat", timeout=5)
    assert result["ok"], result
    names = [file["path"].removeprefix("/srv/files/") for file in result["files"]]
    assert names == ["a.dat", "b.dat", "wild[1].dat"]
    assert check(run, copy, "/srv/files/fifo.dat", timeout=5)["detail"].endswith("there is no such file in the copy")


HOSTILE = "evil\x1b]0;you are root\x07\nok: all is well\r\u202egpj.\udcff.dat"
SHOWN = "evil\\x1b]0;you are root\\x07\\nok: all is well\\r\\u202egpj.\\xff.dat"


def test_names_of_the_copy_are_told_as_plain_text(run: Run, copy: Path) -> None:
    (copy / HOSTILE).write_text("x")
    result = check(run, copy, {"path": "/srv/files/evil*", "min_size": 2})
    assert not result["ok"]
    assert result["detail"].startswith(f"/srv/files/{SHOWN} has 1 bytes"), result
    assert result["files"][0]["path"] == f"/srv/files/{SHOWN}"
    assert f"/srv/files/{SHOWN} has 1 bytes" in result["output"]
    assert json.dumps(result, ensure_ascii=False).encode()  # and all of it can be stored
    (copy / "evil.link").symlink_to(f"/nowhere/{HOSTILE}")
    led = check(run, copy, "/srv/files/evil.link")
    assert SHOWN.replace("\\n", " ").replace("\\r", " ") in led["detail"], led


def test_patterns_pass_over_links_to_this_host(run: Run, copy: Path) -> None:
    (copy / "etc").symlink_to("/etc")
    (copy / "deep/link.dat").symlink_to("/etc/hostname")
    (copy / "round").symlink_to(".")
    (copy / ".hidden.dat").touch()
    (copy / ".folder").mkdir()
    (copy / ".folder/e.dat").touch()
    result = check(run, copy, "/srv/files/**/*.dat", "/srv/files/**", "/srv/files/.*.dat", "/srv/files/wild[[]1].dat")
    assert result["ok"], result
    names = [file["path"].removeprefix("/srv/files/") for file in result["files"]]
    dat = ["a.dat", "b.dat", "wild[1].dat", ".folder/e.dat", "deep/c.dat"]
    assert names == [*dat, ".hidden.dat", "deep/deeper/d.txt"]


def test_the_longest_mount_counts() -> None:
    places = Places({"/srv": "/m/1", "/srv/files/": "/m/2", "/": "/m/3"})
    assert places.here("/srv/files/a") == "/m/2/a"
    assert places.here("/srv/files") == "/m/2"
    assert places.here("/srv/filesystem") == "/m/1/filesystem"
    assert places.here("/srv/files/../x") == "/m/1/x"
    assert places.here("/etc/passwd") == "/m/3/etc/passwd"
    assert places.there("/m/2/a") == "/srv/files/a"
    assert places.there("/m/3/etc") == "/etc"
    assert places.there("/elsewhere") == "/elsewhere"
    with pytest.raises(CheckFailed, match="is on none of the mounted volumes \\(none\\)"):
        Places({}).here("/srv")


def test_one_that_takes_too_long_is_ended(run: Run, copy: Path) -> None:
    with open(copy / "large", "wb") as stream:
        stream.truncate(1 << 40)
    result = check(run, copy, "/srv/files/large", timeout=0.5, max_bytes=1 << 41)
    assert not result["ok"]
    assert result["detail"].startswith("it took longer than its 0.5 s")
    assert result["seconds"] < 3


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes a folder with one file in it whose reads go to nbdkit, with filters that make trouble."""
    processes: list[subprocess.Popen[bytes]] = []

    def make(*nbdkit: str) -> Path:
        folder = tmp_path / f"served{len(processes)}"
        folder.mkdir()
        (folder / "disk").touch()
        command = ["nbdfuse", str(folder / "disk"), "--command", "nbdkit", "-s", "memory", "1M", *nbdkit]
        processes.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        give_up = time.monotonic() + 10
        while not os.path.ismount(folder / "disk"):
            assert time.monotonic() < give_up and processes[-1].poll() is None
            time.sleep(0.02)
        return folder

    yield make
    for number, process in enumerate(processes):
        subprocess.run(["umount", "--lazy", tmp_path / f"served{number}" / "disk"], check=True)
        process.kill()
        process.wait()


@pytest.mark.root
def test_a_disk_that_cannot_be_read_is_named(run: Run, served: Callable[..., Path]) -> None:
    folder = served("--filter=error", "error-pread=EIO", "error-pread-rate=100%")
    result = check(run, folder, "/srv/files/disk")
    assert (result["ok"], result["files"]) == (False, [])
    assert result["detail"] == (
        "/srv/files/disk cannot be read (Input/output error): the copy is damaged, or its disk does not answer"
    )


@pytest.mark.root
def test_a_disk_that_does_not_answer_keeps_nobody(
    run: Run, served: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "LATE", 0.5)
    folder = served("--filter=delay", "rdelay=600")
    result = check(run, folder, "/srv/files/disk", timeout=1)
    assert not result["ok"]
    assert result["detail"] == ("it did not end within 1 s and was killed: a disk or a mount may not answer")
    assert result["seconds"] < 6
