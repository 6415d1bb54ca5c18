# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A medium that somebody else has written to: nothing beyond the repository is touched, nothing hangs or eats memory,
and what is whole is still used."""

from __future__ import annotations

import json
import os
import signal
import stat
import struct
import time
import typing as t
from pathlib import Path

import hypothesis.strategies as st
import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.access import keyfile
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import lease, pins, tombstone
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneReport
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.punched import Ranges
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import (
    bounds,
    codec,
    commit,
    container,
    document,
    schema,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys import secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import names, registry
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify import scrub
from hypothesis import given

from .conftest import ID, KIB, MIB, Lab, MakeImage, noise
from .store.objects import ACTIONS, GOOD


@pytest.fixture(autouse=True)
def alarm() -> t.Iterator[None]:
    """What hangs fails."""

    def late(_number: int, _frame: object) -> t.NoReturn:
        raise AssertionError("it took too long")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def within_memory(limit: int, work: t.Callable[[], None]) -> None:
    """Do some work in a process that gets no more than so many bytes beside those that it has."""
    child = os.fork()
    if not child:
        status = 1
        try:
            import resource

            pages = int(Path("/proc/self/statm").read_text().split()[0])
            allowed = pages * resource.getpagesize() + limit
            resource.setrlimit(resource.RLIMIT_AS, (allowed, allowed))
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def prune(lab: Lab) -> PruneReport:
    """Collect, and forget nothing."""
    return lab.open().prune(None)


def named(lab: Lab) -> set[str]:
    """The objects that a verification names."""
    return {str(problem["object"]) for problem in lab.open().verify(record=False).problems}


# -- links, pipes and the like


def folder_in_place(lab: Lab, name: str) -> Path:
    path = lab.path / name.rpartition("/")[0]
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("name", [f"maps/fs1~m/{ID}", f"pins/{ID}.json", f"gc/leases/{ID}", f"packs/ab/{ID}"])
def test_a_folder_that_is_a_link_leads_nowhere(lab: Lab, outside: Path, action: str, name: str) -> None:
    """Each folder on the way to an object, one after the other."""
    folder = folder_in_place(lab, name)
    while folder != lab.path:
        link = folder
        hidden = lab.folder / "hidden"
        link.rename(hidden)
        link.symlink_to(outside)
        try:
            ACTIONS[action](lab.store(), name)
        except (errors.Damaged, errors.StoreError) as error:
            assert name.split("/", maxsplit=1)[0] in str(error)
        else:
            assert action == "create"  # writes to tmp/ until it is published
        link.unlink()
        hidden.rename(link)
        folder = folder.parent


def test_a_folder_that_becomes_a_link_at_any_moment(lab: Lab, outside: Path) -> None:
    """Somebody swaps the folder and a link, over and over, while it is used."""
    name = f"maps/fs1~m/{ID}"
    folder = folder_in_place(lab, name)
    hidden = lab.folder / "hidden"
    child = os.fork()
    if not child:
        try:
            while os.getppid() > 1:
                folder.rename(hidden)
                folder.symlink_to(outside / "fs1~m")
                folder.unlink()
                hidden.rename(folder)
        finally:
            os._exit(1)
    place = lab.store()
    refused = 0
    end = time.monotonic() + 20
    try:
        while refused < 100 and time.monotonic() < end:
            for action in ("delete", "delete all", "get a part", "punch", "abandoned"):
                try:
                    ACTIONS[action](place, name)
                except errors.Damaged:
                    refused += 1
                except errors.NotFound:
                    pass
                else:
                    assert action in ("delete all", "abandoned"), "it was found behind the link"
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert refused


@pytest.mark.parametrize("what", ["link", "link to a folder", "pipe", "folder"])
@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_no_file_is_neither_read_nor_written(lab: Lab, outside: Path, action: str, what: str) -> None:
    name = f"pins/{ID}.json"
    path = folder_in_place(lab, name) / f"{ID}.json"
    make_something(path, what, outside)
    place = lab.store()
    if action in ("get", "get a part", "size", "room", "punch"):
        with pytest.raises(
            errors.Damaged, match=f"{name}: it is (a link|a folder|a special file), where a regular file"
        ):
            ACTIONS[action](place, name)
    elif action == "abandoned":
        assert place.abandoned(name, remove=True) is False
    elif action in ("put", "hold") or (what == "folder" and action in ("replace", "delete", "delete all")):
        with pytest.raises(errors.StoreError):
            ACTIONS[action](place, name)
    else:
        ACTIONS[action](place, name)
    assert os.path.lexists(path) is (what == "folder" or action not in ("delete", "delete all"))
    assert path.is_file() is (action == "replace" and what != "folder") or what == "link"


def make_something(path: Path, what: str, outside: Path) -> None:
    if what == "link":
        path.symlink_to(outside / "precious")
    elif what == "link to a folder":
        path.symlink_to(outside)
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
    else:
        path.mkdir()


@pytest.mark.root
def test_a_device_is_not_opened(lab: Lab, outside: Path) -> None:
    """/dev/zero under a pack's name: it would be read for ever."""
    path = folder_in_place(lab, f"packs/ab/{ID}") / ID
    try:
        make_something(path, "device", outside)
    except PermissionError:
        pytest.skip("this machine refuses to make devices")
    with pytest.raises(errors.Damaged, match="a special file"):
        lab.store().get(f"packs/ab/{ID}", 0, 10)
    assert named(lab) == {f"packs/ab/{ID}"}


def test_a_repository_whose_own_folder_is_a_link(lab: Lab, mixed: Path, tmp_path: Path) -> None:
    """Who names it decides that: a site keeps it on another disk."""
    link = tmp_path / "link"
    link.symlink_to(lab.path)
    saveset = lab.backup(mixed)
    repo = repository.Repository.open(registry.open_store(str(link)), lab.secret)
    assert repo.find("fs1/m").read(0, saveset.size) == mixed.read_bytes()
    assert repo.verify(depth="full").ok and repo.prune(None).packs_deleted == 0


FOLDERS = ["checks", "features", "gc/punched", "keys", "maps/fs1~m", "pins", "sessions", "tmp", "gc/tombstones"]


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_link_in_the_place_of_a_folder_is_reported(lab: Lab, mixed: Path, outside: Path, folder: str) -> None:
    saveset = lab.backup(mixed)
    lab.open().verify(depth="full")
    path = lab.path / folder
    path.parent.mkdir(exist_ok=True)
    if path.exists():
        path.rename(lab.folder / "hidden")
    path.symlink_to(outside)
    if folder == "keys":
        with pytest.raises(errors.Damaged, match="keys: a link or a file is in place of its folder"):
            lab.open()
        return
    assert any(folder in name for name in named(lab))
    assert any(folder in name for name, _problem in scrub.scrub(lab.store()))
    if not folder.startswith("maps"):
        assert lab.restore(lab.open().find("fs1/m", saveset.id)).read_bytes() == mixed.read_bytes()
    try:
        lab.open().prune(Policy(last=1))
    except errors.SavesetError as error:
        assert folder in str(error)
    assert len(lab.open().savesets()) == 1


def test_a_link_in_the_place_of_tmp_is_not_swept(lab: Lab, mixed: Path, outside: Path) -> None:
    """Files in it that nobody has locked look like what dead writers left."""
    (lab.path / "tmp").rmdir()
    (lab.path / "tmp").symlink_to(outside)
    for write in (lambda: lab.store().sweep(), lambda: lab.backup(mixed), lambda: lab.store().put("README.txt", b"")):
        with pytest.raises((errors.Damaged, errors.StoreError), match="there is no link in|links are not followed"):
            write()
    assert not lab.store().can_punch()


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_what_stands_for_a_collector_and_is_no_file_is_reported(lab: Lab, outside: Path, what: str) -> None:
    make_something(folder_in_place(lab, "gc/collector") / "collector", what, outside)
    with pytest.raises(errors.RepositoryBusy, match="gc/collector is not a file"):
        prune(lab)
    assert named(lab) == {"gc/collector"}


def test_what_is_no_object_is_set_aside_and_reported(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    strays = {
        "packs/xy": True,
        "packs/ab": True,
        f"packs/ab/{'zz' * 16}": False,
        f"packs/ab/{ID}.tmp": False,
        f"packs/ab/cd/{ID}": False,
        "maps/not a volume": True,
        "gc/leases/notes": False,
        "gc/extra/one": False,
        "savesets/fs1~m/new\nline\x1b[2J": False,
        "checks/one": False,
        "packs/lost+found": True,
        "packs/ab/.nfs0000000012345": False,
    }
    for name, folder in strays.items():
        path = lab.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.mkdir(exist_ok=True) if folder else path.write_bytes(b"x")
    found = named(lab)
    assert found == {
        *("packs/xy", f"packs/ab/{'zz' * 16}", f"packs/ab/{ID}.tmp", "packs/ab/cd", "maps/not a volume"),
        *("gc/leases/notes", "gc/extra", "savesets/fs1~m/new\\nline\\x1b[2J", "checks/one"),
    }
    assert {name for name, _problem in scrub.scrub(lab.store())} == found
    assert prune(lab).packs_deleted == 0
    assert lab.restore(lab.backup(mixed)).read_bytes() == mixed.read_bytes()
    assert all((lab.path / name).exists() for name in strays)


def test_commits_behind_a_link_end_a_prune(lab: Lab, mixed: Path, outside: Path) -> None:
    """What they use is not known: to remove it would be the end of them when the link goes."""
    saveset = lab.backup(mixed)
    folder = lab.path / "savesets" / "fs1~m"
    folder.rename(outside / "moved")
    folder.symlink_to(outside / "moved")
    packs = lab.files("packs")
    with pytest.raises(errors.Damaged, match="savesets/fs1~m.*nothing was removed"):
        prune(lab)
    assert lab.files("packs") == packs
    folder.unlink()
    (outside / "moved").rename(folder)
    assert prune(lab).packs_deleted == 0 and lab.open().find("fs1/m").id == saveset.id


def test_a_file_that_has_another_name_too_is_not_punched(lab: Lab, outside: Path) -> None:
    name = f"packs/ab/{ID}"
    (folder_in_place(lab, name) / ID).hardlink_to(outside / "precious")
    assert lab.store().punch(name, [(0, 64 * KIB)]) == 0


# -- tombstones, leases and pins that lie


def put_signed(lab: Lab, name: str, kind: str, fields: dict[str, t.Any]) -> None:
    """Put a whole document with a right MAC, which anybody can make where nothing is encrypted."""
    path = lab.path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(document.sign_document(kind, fields, lab.open()._ring.mac))


MAPS = [
    *("/etc/passwd", "../outside/precious", "maps/../../outside/precious", "repo.json", "maps/fs1~m/not hex"),
    *(f"maps/fs1~m/{ID}\n", f"keys/{ID}.json", f"packs/ab/{ID}", "", 7, None, [f"maps/fs1~m/{ID}"]),
]


@pytest.mark.parametrize("name", MAPS)
def test_a_forged_tombstone_removes_nothing(plain_lab: Lab, mixed: Path, outside: Path, name: t.Any) -> None:
    lab = plain_lab
    saveset = lab.backup(mixed)
    if isinstance(name, str):
        name = name.replace("../outside/precious", f"../{outside.name}/precious")
    forged = f"{tombstone.FOLDER}/20260301T120000Z-{ID}"
    before = [path for path in sorted(lab.path.rglob("*")) if "gc" not in path.parts]
    put_signed(lab, forged, "tombstone", {"id": ID, "packs": [], "maps": [name], "frames": {}})
    assert named(lab) == {forged}
    prune(lab)
    assert not (lab.path / forged).exists()  # withdrawn, as nobody can carry it out
    assert [path for path in sorted(lab.path.rglob("*")) if "gc" not in path.parts] == before
    assert lab.restore(lab.backup(mixed, parent=saveset.info)).read_bytes() == mixed.read_bytes()


@pytest.mark.parametrize(
    "frames", [{ID: [[-4096, 1 << 40]]}, {ID: [[0]]}, {ID: [[0, 1 << 70]]}, {"x": []}, {ID: [["0", 1]]}, []]
)
def test_a_tombstone_of_frames_that_make_no_sense(plain_lab: Lab, mixed: Path, frames: t.Any) -> None:
    plain_lab.backup(mixed)
    forged = f"{tombstone.FOLDER}/20260301T120000Z-{ID}"
    put_signed(plain_lab, forged, "tombstone", {"id": ID, "packs": [], "maps": [], "frames": frames})
    assert named(plain_lab) == {forged}
    assert prune(plain_lab).packs_punched == 0 and named(plain_lab) == set()


def test_a_tombstone_too_large_for_a_document_is_put_in_parts(lab: Lab) -> None:
    packs = frozenset(number.to_bytes(16, "big") for number in range(30_000))
    maps = frozenset(f"maps/{'v' * 100}~{'v' * 99}/{number:032x}" for number in range(30_000))
    frames = {number.to_bytes(16, "big"): Ranges([(0, 10), (20, 5)]) for number in range(100)}
    whole = tombstone.Tombstone(tombstone.new_name(), packs, maps, frames)
    for part in whole.parts():
        tombstone.put_tombstone(lab.store(), lab.open()._ring, part)
    read, unreadable = tombstone.read_tombstones(lab.store(), lab.open()._ring)
    assert not unreadable and len(read) == 3
    assert frozenset().union(*(part.packs for part in read)) == packs
    assert frozenset().union(*(part.maps for part in read)) == maps
    assert {pack: list(ranges) for part in read for pack, ranges in part.frames.items()} == {
        pack: list(ranges) for pack, ranges in frames.items()
    }


@pytest.mark.parametrize("what", ["link", "pipe"])
def test_a_lease_that_is_no_file_holds_up_what_is_removed(lab: Lab, mixed: Path, outside: Path, what: str) -> None:
    saveset = lab.backup(mixed)
    lab.open().forget([saveset.id])
    make_something(folder_in_place(lab, f"gc/leases/{ID}") / ID, what, outside)
    report = prune(lab)
    assert report.packs_deleted == 0 and "cannot be read" in report.waiting[0].leases[0]
    (lab.path / "gc/leases" / ID).unlink()
    assert prune(lab).packs_deleted == 1


@pytest.mark.parametrize("role", [{"role": "backup", "volume": ""}, {"role": 7}, {"seen": ["../x"]}, {"volume": ".."}])
def test_a_lease_that_lies_holds_up_what_is_removed(lab: Lab, mixed: Path, role: dict[str, t.Any]) -> None:
    saveset = lab.backup(mixed)
    lab.open().forget([saveset.id])
    fields = {"id": ID, "role": "restore", "volume": "", "session": "", "seen": [], "host": "h", "pid": 1, "since": "x"}
    data = document.sign_document(lease.KIND, {**fields, **role}, lab.open()._ring.mac)
    hold = lab.store().hold(f"gc/leases/{ID}", data)
    assert prune(lab).packs_deleted == 0
    hold.release()
    assert prune(lab).packs_deleted == 1


@pytest.mark.parametrize("what", ["link", "pipe", "folder"])
def test_a_pin_that_is_no_file_counts(lab: Lab, mixed: Path, outside: Path, what: str) -> None:
    first = lab.backup(mixed)
    lab.backup(mixed)
    make_something(folder_in_place(lab, pins.pin_name(first.id)) / f"{first.id}.json", what, outside)
    assert lab.open().prune(Policy(last=1)).forgotten == []
    if what != "folder":
        with pytest.raises(errors.InvalidValue, match="pinned"):
            lab.open().forget([first.id])
    assert lab.open().forget([]) == [] and len(lab.open().savesets()) == 2


# -- documents that cost too much


BOMBS = {
    "deep lists": b"[" * 200_000,
    "deep objects": b'{"a":' * 50_000,
    "closed": b"[" * 5000 + b"]" * 5000 + b"\n",
    "many": b"[" + b"[]," * 2_500_000 + b"[]]\n",
    "quotes": b'"\\"' * 1_000_000,
    "texts": b"[" * 65 + b'["' + b'""' * (30 << 20) + b'"]',
    "escapes": b"[" * 65 + b'["' + b'\\"' * (30 << 20) + b'"]',
    "not a number": b'{"a":NaN}\n',
    "infinite": b'{"a":1e999}\n',
    "digits": b'{"a":' + b"1" * 60_000 + b"}\n",
    "twice": b'{"a":1,"a":2}\n',
    "surrogate": b'{"a":"\\ud800"}\n',
    "utf-16": '{"a":1}\n'.encode("utf-16"),
    "nothing": b"",
    "null": b"null\n",
    "a list": b"[]\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_text_that_is_a_bomb_is_refused(bomb: str) -> None:
    def work() -> None:
        with pytest.raises(errors.Damaged, match="gc/collector"):
            document.decode_document("gc/collector", BOMBS[bomb], "check")

    within_memory(300 * MIB, work)


def depth_of(value: t.Any) -> int:
    """How many objects and lists are in each other."""
    if not isinstance(value, (dict, list)):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


VALUES = st.recursive(
    st.text('ab"\\[]{},:', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\[', max_size=3), inner, max_size=3),
    max_leaves=25,
)


@given(VALUES, st.integers(0, 6))
def test_the_depth_of_a_text_is_known_before_it_is_parsed(value: t.Any, limit: int) -> None:
    """Whatever brackets, quotes and backslashes are in its strings."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schema, "DEPTH_MAX", limit)
        try:
            schema.check_shape(json.dumps(value).encode())
        except ValueError as error:
            assert "deeper" in str(error) and depth_of(value) > limit
        else:
            assert depth_of(value) <= limit


@pytest.mark.parametrize("bomb", ["closed", "digits", "infinite", "twice"])
def test_a_bomb_in_a_sealed_part_is_refused(lab: Lab, mixed: Path, bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has the writer's keys makes commits; they cannot keep the others from being used."""
    first = lab.backup(mixed)
    monkeypatch.setattr(commit.encode_commit.__globals__["json"], "dumps", lambda *_a, **_n: BOMBS[bomb].decode())
    info = first.info
    monkeypatch.setitem(commit.encode_commit.__globals__, "check_metadata", lambda _metadata: None)
    dumps = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode
    monkeypatch.setattr(document, "_canonical", lambda body: dumps(body).encode())
    data = commit.encode_commit(info, lab.open()._ring)
    monkeypatch.undo()
    (lab.path / first.info.name).unlink()
    second = lab.backup(mixed)
    (lab.path / first.info.name).write_bytes(data)
    assert [found.id for found in lab.open().savesets()] == [second.id]
    assert named(lab) == {first.info.name}


@pytest.mark.parametrize("bomb", ["deep lists", "closed", "digits", "null"])
@pytest.mark.parametrize(
    "name",
    [
        name
        for name in sorted(GOOD)
        if name.startswith(("keys", "features", "savesets", "pins", "gc", "checks", "READ"))
    ],
)
def test_one_bad_object_keeps_nothing_else_from_being_used(lab: Lab, mixed: Path, name: str, bomb: str) -> None:
    saveset = lab.backup(mixed)
    path = folder_in_place(lab, name) / name.rpartition("/")[2]
    path.write_bytes(BOMBS[bomb])
    repo = lab.open()
    assert repo.find("fs1/m", saveset.id).read(0, saveset.size) == mixed.read_bytes()
    found = named(lab)
    if not name.startswith(("gc/leases", "gc/collector", "READ")):  # dead processes' leases go, README.txt is made anew
        assert name in found
    removed = []
    try:
        removed = repo.prune(Policy(last=1)).forgotten
    except errors.SavesetError as error:
        assert name in str(error)
    assert not removed
    if not name.startswith("features"):
        assert lab.restore(lab.backup(mixed, volume="fs2/m")).read_bytes() == mixed.read_bytes()


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_an_object_is_not_larger_than_its_kind_may_be(lab: Lab, kind: str) -> None:
    """A hole of a terabyte costs a medium nothing, and whoever reads it no more."""
    largest = names.kind_of(kind).max_bytes
    path = folder_in_place(lab, kind) / kind.rpartition("/")[2]
    path.touch()
    os.truncate(path, 1 << 40)
    with pytest.raises((errors.Damaged, errors.InvalidValue), match="the limit is|never read whole"):
        lab.store().get(kind)
    with pytest.raises(errors.Damaged, match="a part of it"):
        lab.store().get(kind, 0, 1 << 39)
    if largest is not None:
        with pytest.raises(errors.InvalidValue, match="the limit is"):
            lab.store().put(kind, bytes(largest + 1), exclusive=False)


def sparse_pack(lab: Lab, footer: int, kind: container.Kind = container.PACK_KIND) -> str:
    """A container of holes, its header and trailer right, that claims a footer of so many bytes."""
    name = container.object_name(kind, bytes.fromhex(ID), "fs1~m")
    header = container.make_header(kind, bytes.fromhex(ID), 64 * KIB, lab.open()._ring.encrypted)
    trailer = struct.pack("<8sQII8x", b"ISBEND\r\n", len(header), footer, 0)
    path = folder_in_place(lab, name) / ID
    with open(path, "wb") as stream:
        stream.write(header)
        stream.seek(len(header) + footer)
        stream.write(trailer + container._check(header + trailer))
    assert path.stat().st_blocks * 512 <= 8 * KIB
    return name


@pytest.mark.parametrize("footer", [(1 << 30) - 200, 0xFFFFFFFF - 200, bounds.PACK_FOOTER_MAX])
def test_a_sparse_pack_costs_no_memory(lab: Lab, mixed: Path, footer: int) -> None:
    saveset = lab.backup(mixed)
    name = sparse_pack(lab, footer)

    def work() -> None:
        repo = lab.open()
        problems = repo.verify(depth="stored", record=False, workers=1).problems
        assert [problem["object"] for problem in problems] == [name]
        assert {name for name, _problem in scrub.scrub(lab.store())} == {name}
        assert repo.find("fs1/m").read(0, saveset.size) == mixed.read_bytes()

    within_memory(300 * MIB, work)


def test_a_frame_that_claims_to_unpack_to_a_terabyte(lab: Lab) -> None:
    """What zstd makes room for is what its data say, whatever they hold."""
    bomb = bytes.fromhex("28b52ffde0") + (1 << 40).to_bytes(8, "little") + b"\x01\0\0"
    room = memoryview(bytearray(100))
    within_memory(100 * MIB, lambda: check_none(codec.decompress(codec.ZSTD, bomb, 100)))
    assert codec.decompress(codec.ZSTD, bomb, 100, room) is None
    assert codec.decompress(codec.ZSTD, b"", 0) is None


def check_none(value: object) -> None:
    assert value is None


# -- key files that cost too much


def plant_keys(lab: Lab, count: int, **changes: t.Any) -> None:
    """Copies of the key file that ask for something else, under names of their own: made without any key."""
    (path,) = lab.files("keys")
    fields = {key: value for key, value in json.loads(path.read_bytes()).items() if key not in ("mac", "hash")}
    for number in range(count):
        key_id = f"{number:032x}"
        data = document.sign_document("key", {**fields, **changes, "id": key_id}, lambda _label, _data: bytes(32))
        (lab.path / "keys" / f"{key_id}.json").write_bytes(data)


@pytest.mark.parametrize("cost", [{"n": 1 << 21}, {"n": 1 << 24}, {"n": 1 << 14, "p": 1 << 10}, {"n": 2, "r": 1 << 16}])
def test_key_files_that_ask_for_too_much_are_passed_over(lab: Lab, cost: dict[str, int]) -> None:
    plant_keys(lab, 64, **cost)
    within_memory(300 * MIB, lambda: check_none(lab.open().key_files.find_passphrase("writer", b"other")))
    assert len(named(lab)) == 64


def test_what_costs_more_is_tried_later(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_keys(lab, 20, n=1 << 19)
    tried: list[int] = []
    stretch = keyfile._stretch

    def counting(passphrase: bytes, salt: bytes, cost: secret.ScryptCost) -> bytes:
        tried.append(cost.work)
        return stretch(passphrase, salt, cost)

    monkeypatch.setattr(keyfile, "_stretch", counting)
    lab.open()
    assert tried == [lab.secret.cost.work]


def test_what_all_key_files_cost_is_bounded(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    plant_keys(lab, 40, n=1 << 17)
    tried: list[int] = []
    monkeypatch.setattr(keyfile, "_stretch", lambda _phrase, _salt, cost: tried.append(cost.work) or bytes(32))
    with pytest.raises(errors.Damaged, match="too long to try.*nobody here created"):
        repository.Repository.open(lab.store(), secret.Secret(b"wrong"))
    assert 0 < sum(tried) <= secret.SCRYPT_WORK_ALL


def test_no_key_file_is_made_that_would_not_be_tried(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    files = lab.open().key_files
    for cost in (secret.ScryptCost(n=1 << 21), secret.ScryptCost(n=15), secret.ScryptCost(p=0)):
        with pytest.raises(errors.InvalidValue, match="cost of a passphrase"):
            files.add_passphrase(b"new", cost=cost)
    monkeypatch.setitem(files._check_work.__func__.__globals__, "SCRYPT_WORK_ALL", 3 * lab.secret.cost.work)
    for number in (1, 2):
        files.add_passphrase(b"new%d" % number, cost=lab.secret.cost)
    with pytest.raises(errors.InvalidValue, match="already has so many"):
        files.add_passphrase(b"new3", cost=lab.secret.cost)
    assert files.change_passphrase(b"changed", cost=lab.secret.cost)
    assert len(lab.open().key_files.all() if lab.secret.passphrase == b"changed" else files.all()) == 3


# -- what is written can be read


@pytest.mark.parametrize(
    "wrong",
    [
        {"run_id": "two\nlines"},
        {"verdict": "\x1b[2J"},
        {"run_id": "x" * 2000},
        {"source_id": "x" * 5000},
        {"metadata": {"a": float("nan")}},
        {"metadata": {"a": "x" * (5 << 20)}},
    ],
)
def test_what_no_commit_can_keep_is_refused_before_anything_is_read(
    lab: Lab, make_image: MakeImage, wrong: dict[str, t.Any]
) -> None:
    image = make_image("a", 256 * KIB, [(0, noise(256 * KIB))])
    with pytest.raises(errors.InvalidValue):
        lab.backup(image, **wrong)
    assert lab.files("packs") == []


def test_metadata_that_is_too_deep_is_refused(lab: Lab, make_image: MakeImage) -> None:
    deep: list[t.Any] = []
    for _level in range(schema.DEPTH_MAX - 5):
        deep = [deep]
    image = make_image("a", 64 * KIB)
    saveset = lab.backup(image, metadata={"deep": deep})
    assert lab.open().find("fs1/m", saveset.id).metadata == {"deep": deep}
    for _level in range(5):
        deep = [deep]
    with pytest.raises(errors.InvalidValue, match="deeper"):
        lab.backup(image, metadata={"deep": deep})
