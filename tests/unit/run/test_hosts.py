# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Jobs, slots, processes, snapshots, volumes and exports: what runs on storage and backup servers."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.backup.slots import slot
from ansible_collections.openisb.backup.plugins.module_utils.host import nbd_exports, processes
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import FINISHED, RUNNING, Job, progress_of
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import ExportError, Exports
from ansible_collections.openisb.backup.plugins.module_utils.host.volumes import VolumeError, describe
from ansible_collections.openisb.backup.plugins.module_utils.storage import snapshots as snapshots_module
from ansible_collections.openisb.backup.plugins.module_utils.storage.snapshots import (
    SnapshotError,
    SnapshotFolder,
    free_bytes,
    holdings_after,
    metadata_free_bytes,
)
from ansible_collections.openisb.backup.plugins.modules.job_info import has_ended, look

RUN = "isb-20261123T021500Z-4f1c2a"
SERIALS = ["6000000000000001", "6000000000000002"]
MIB = 1024**2


@pytest.fixture
def sleeper():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    yield process
    process.kill()
    process.wait()


def test_a_process_is_known_by_its_start(sleeper):
    process = processes.identity(sleeper.pid)
    assert processes.is_running(process)
    assert not processes.is_running(dict(process, ticks=process["ticks"] + 1))


def test_only_that_very_process_is_ended(sleeper):
    process = processes.identity(sleeper.pid)
    assert processes.stop(dict(process, ticks=process["ticks"] + 1))
    assert sleeper.poll() is None
    assert processes.stop(process)
    assert sleeper.wait() != 0


def test_a_job_tells_how_far_it_is(tmp_path):
    job = Job(str(tmp_path), "backup.fs1.m")
    assert job.read() is None
    job.tell(RUNNING, progress_of(50, 200, 2.0))
    record = job.read()
    assert record["running"]
    assert record["progress"] == {"percent": 25.0, "bytes_done": 50, "bytes_total": 200, "rate": 25, "eta_s": 6.0}


def test_a_job_whose_process_is_gone_does_not_run(tmp_path):
    child = multiprocessing.Process(target=Job(str(tmp_path), "j").tell, args=(RUNNING,))
    child.start()
    child.join()
    assert Job(str(tmp_path), "j").read()["running"] is False


def test_something_that_happens_to_any_job_is_waited_for(tmp_path):
    run_dir = str(tmp_path)
    assert look(run_dir, 0.1, set()) == {}
    job, other = Job(run_dir, "j"), Job(run_dir, "other")
    job.tell(RUNNING)
    other.tell(RUNNING)
    assert {name: record["state"] for name, record in look(run_dir, 0.1, set()).items()} == {
        "j": RUNNING,
        "other": RUNNING,
    }
    child = multiprocessing.Process(target=tell_and_end, args=(job,))
    child.start()
    while job.read()["pid"] != child.pid:
        time.sleep(0.01)
    found = look(run_dir, 60, set())
    assert (found["j"]["state"], has_ended(found["j"]), has_ended(found["other"])) == (FINISHED, True, False)
    child.join()
    waiting = multiprocessing.Process(target=begin_later, args=(Job(run_dir, "third"),))
    waiting.start()
    assert set(look(run_dir, 60, {"j"})) == {"j", "other", "third"}
    waiting.join()


def test_a_job_that_has_ended_before_the_look_is_not_waited_for(tmp_path):
    job = Job(str(tmp_path), "j")
    job.tell(FINISHED)
    begun = time.monotonic()
    assert has_ended(look(str(tmp_path), 60, {"other"})["j"])
    assert time.monotonic() - begun < 30
    assert has_ended(look(str(tmp_path), 0.1, {"j"})["j"])
    assert time.monotonic() - begun >= 0.1


def begin_later(job):
    time.sleep(0.3)
    job.tell(RUNNING)


def tell_and_end(job):
    job.tell(RUNNING)
    time.sleep(0.3)
    job.tell(FINISHED)


def test_jobs_that_ended_long_ago_are_swept(tmp_path):
    child = multiprocessing.Process(target=Job(str(tmp_path), "old").tell, args=(FINISHED,))
    child.start()
    child.join()
    Job(str(tmp_path), "mine").tell(RUNNING)
    for name in ("old", "mine"):
        os.utime(Job(str(tmp_path), name).path, (0, 0))
    Job(str(tmp_path), "other").sweep()
    assert Job(str(tmp_path), "old").read() is None
    assert Job(str(tmp_path), "mine").read() is not None


def hold_slot(folder, taken, free):
    with slot(folder, 1):
        taken.set()
        free.wait(10)


def test_a_slot_is_held_by_one_at_a_time(tmp_path):
    taken, free = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(target=hold_slot, args=(str(tmp_path), taken, free))
    other.start()
    assert taken.wait(10)
    waits = []

    def waiting():
        waits.append(time.monotonic())
        free.set()

    with slot(str(tmp_path), 1, waiting):
        assert waits
    other.join()


def test_a_slot_is_free_again_when_its_holder_is_killed(tmp_path):
    taken, free = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(target=hold_slot, args=(str(tmp_path), taken, free))
    other.start()
    assert taken.wait(10)
    other.kill()
    other.join()
    with slot(str(tmp_path), 1, lambda: pytest.fail("the slot was not free")):
        pass


@pytest.fixture
def snapshots(tmp_path):
    folder = tmp_path / RUN
    folder.mkdir()
    for serial in SERIALS:
        (folder / f"{serial}.lun").write_bytes(b"x")
    (tmp_path / "something else").mkdir()
    return SnapshotFolder("file", str(tmp_path))


def test_only_folders_of_runs_are_snapshots(snapshots):
    assert [entry["run_id"] for entry in snapshots.snapshots()] == [RUN]
    assert snapshots.luns(RUN) == SERIALS


def test_one_server_is_cleaned_up_alone(snapshots):
    snapshots.delete(RUN, SERIALS[:1])
    assert snapshots.luns(RUN) == SERIALS[1:]
    snapshots.delete(RUN, SERIALS[:1])
    assert snapshots.luns(RUN) == SERIALS[1:]


def test_the_snapshot_goes_with_its_last_lun(snapshots):
    snapshots.delete(RUN, SERIALS[:1])
    snapshots.delete(RUN, SERIALS[1:])
    assert not os.path.exists(snapshots.path(RUN))
    assert os.path.isdir(os.path.join(snapshots.directory, "something else"))
    snapshots.delete(RUN)


def test_nothing_is_deleted_that_is_not_named_like_a_run(snapshots):
    with pytest.raises(SnapshotError, match="nothing was deleted"):
        snapshots.delete("something else")


BEFORE = {"r1": ["a", "b"], "r2": ["a"], "r3": ["a", "b", "stranger"]}


@pytest.mark.parametrize(
    ("options", "after"),
    [
        ({"leave": ["a"]}, {"r1": ["a", "b"], "r2": ["a"], "r3": ["b", "stranger"]}),
        ({"clear": ["a"]}, {"r1": ["b"], "r2": [], "r3": ["a", "b", "stranger"]}),
        ({"clear": ["a"], "kept": ["r1", "r3"]}, {"r1": ["a", "b"], "r2": [], "r3": ["a", "b", "stranger"]}),
        ({"leave": ["a"], "kept": ["r3"]}, {"r1": ["a", "b"], "r2": ["a"], "r3": ["b", "stranger"]}),
        ({"members": ["a", "b"]}, {"r1": ["a", "b"], "r2": ["a"], "r3": ["a", "b"]}),
    ],
)
def test_which_luns_stay(options, after):
    assert holdings_after(BEFORE, "r3", **{"leave": [], "clear": [], **options}) == after


def test_a_snapshot_that_is_kept_is_kept_until_it_is_deleted(snapshots):
    assert not snapshots.is_kept(RUN)
    snapshots.keep(RUN)
    assert snapshots.is_kept(RUN)
    assert [entry["run_id"] for entry in snapshots.snapshots()] == [RUN]
    snapshots.delete(RUN)
    assert not snapshots.is_kept(RUN)
    assert os.listdir(snapshots.directory) == ["something else"]


def test_a_copy_is_known_by_an_identity_that_a_copy_of_it_has_not(snapshots):
    path = Path(snapshots.lun_path(RUN, SERIALS[0]))
    with pytest.raises(SnapshotError, match="has no identity"):
        snapshots.identity(RUN, SERIALS[0])
    identity = snapshots.identity(RUN, SERIALS[0], create=True)
    assert identity.startswith(f"{RUN}/{SERIALS[0]}/")
    assert identity == snapshots.identity(RUN, SERIALS[0]) == snapshots.identity(RUN, SERIALS[0], create=True)
    assert identity != snapshots.identity(RUN, SERIALS[1], create=True)
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))
    assert identity != snapshots.identity(RUN, SERIALS[0])
    path.unlink()
    with pytest.raises(SnapshotError, match="no base snapshot"):
        snapshots.identity(RUN, SERIALS[0])
    path.write_bytes(b"x")
    assert identity != snapshots.identity(RUN, SERIALS[0], create=True)


def test_nothing_is_told_while_a_balance_runs(monkeypatch):
    told = iter(["No balance found on '/pool'\n", "Balance on '/pool' is running\n0 out of about 3 chunks balanced\n"])
    monkeypatch.setattr(snapshots_module, "_run", lambda command, good: next(told))
    folder = SnapshotFolder("btrfs", "/pool/snapshots")
    folder.check_quiet()
    with pytest.raises(SnapshotError, match="a btrfs balance is running"):
        folder.check_quiet()
    SnapshotFolder("file", "/elsewhere").check_quiet()


@pytest.mark.root
def test_a_btrfs_snapshot_is_known_by_its_subvolume(btrfs):
    subprocess.run(["btrfs", "subvolume", "create", btrfs / "luns"], check=True, capture_output=True)
    (btrfs / "luns" / f"{SERIALS[0]}.lun").write_bytes(b"x" * 4096)
    snapshots = SnapshotFolder("btrfs", str(btrfs))
    snapshots.check_quiet()
    identities = set()
    for _number in range(2):
        subprocess.run(
            ["btrfs", "subvolume", "snapshot", "-r", btrfs / "luns", btrfs / RUN], check=True, capture_output=True
        )
        identities.add(snapshots.identity(RUN, SERIALS[0]))
        subprocess.run(["btrfs", "property", "set", btrfs / RUN, "ro", "false"], check=True)
        with pytest.raises(SnapshotError, match="is not read-only"):
            snapshots.identity(RUN, SERIALS[0])
        snapshots.delete(RUN)
    assert len(identities) == 2


@pytest.mark.root
def test_a_btrfs_snapshot_loses_one_server_and_stays_read_only(btrfs):
    subprocess.run(["btrfs", "subvolume", "create", btrfs / "luns"], check=True, capture_output=True)
    for serial in SERIALS:
        (btrfs / "luns" / f"{serial}.lun").write_bytes(b"x" * 4096)
    (btrfs / "snapshots").mkdir()
    subprocess.run(
        ["btrfs", "subvolume", "snapshot", "-r", btrfs / "luns", btrfs / "snapshots" / RUN],
        check=True,
        capture_output=True,
    )
    snapshots = SnapshotFolder("btrfs", str(btrfs / "snapshots"))
    snapshots.delete(RUN, SERIALS[:1])
    assert snapshots.luns(RUN) == SERIALS[1:]
    with pytest.raises(OSError, match="Read-only"):
        (btrfs / "snapshots" / RUN / "new").touch()
    snapshots.delete(RUN)
    assert list((btrfs / "snapshots").iterdir()) == []
    assert len(list((btrfs / "luns").iterdir())) == 2


@pytest.mark.root
@pytest.mark.parametrize("mode", ["--data=single", "--mixed"])
def test_what_a_btrfs_pool_has_left_for_metadata(mounted, mode):
    pool = mounted("mkfs.btrfs", "-q", mode, size=512 * MIB)
    empty = metadata_free_bytes(str(pool))
    assert 128 * MIB < empty < 512 * MIB
    subprocess.run(["fallocate", "--length", str(256 * MIB), pool / "ballast"], check=True)
    subprocess.run(["sync", "-f", pool], check=True)
    assert metadata_free_bytes(str(pool)) < empty - 64 * MIB


@pytest.mark.root
def test_a_btrfs_pool_that_was_full_of_data_has_room_for_data_alone(mounted):
    pool = mounted("mkfs.btrfs", "-q", size=512 * MIB)
    files = [pool / str(number) for number in range(64)]
    for path in files:
        subprocess.run(["fallocate", "--length", "8M", path], capture_output=True, check=False)
    subprocess.run(["sync", "-f", pool], check=True)
    for path in files[::2]:
        path.unlink(missing_ok=True)
    subprocess.run(["sync", "-f", pool], check=True)
    assert free_bytes(str(pool)) > 128 * MIB
    assert metadata_free_bytes(str(pool)) < 64 * MIB


def test_a_folder_that_is_no_btrfs_pool_is_named(tmp_path):
    with pytest.raises(SnapshotError, match=f"usage --raw {tmp_path}"):
        metadata_free_bytes(str(tmp_path))


@pytest.fixture
def btrfs(mounted):
    return mounted("mkfs.btrfs", "-q", size=128 * MIB)


def test_a_volume_that_is_a_file(tmp_path):
    path = tmp_path / "mumps.dat"
    path.write_bytes(b"x" * 1000)
    found = describe({"name": "m", "serial": SERIALS[0], "path": str(path)})
    assert found["size"] == 1000
    with pytest.raises(VolumeError, match="there is no file"):
        describe({"name": "m", "serial": SERIALS[0], "path": str(path) + "x"})


@pytest.mark.parametrize(
    ("volume", "text"),
    [
        ({"name": "m", "serial": "nonsense"}, "is not 16 to 32"),
        ({"name": "m", "serial": "00000000deadbeef"}, "no LUN with serial 00000000deadbeef"),
    ],
)
def test_a_volume_that_is_not_there(volume, text):
    with pytest.raises(VolumeError, match=text):
        describe(volume)


@pytest.fixture
def exports(tmp_path):
    exports = Exports(str(tmp_path / "run"))
    yield exports
    for record in exports.list():
        exports.stop(record["name"])


@pytest.fixture
def lun(tmp_path):
    path = tmp_path / "lun"
    path.write_bytes(bytes(range(256)) * 4096)
    return str(path)


def read_size(uri):
    return subprocess.run(["nbdinfo", "--size", uri], capture_output=True, text=True, check=False)


def test_an_export_needs_its_key(exports, lun):
    record = exports.start("e", lun, "127.0.0.1", True, True, RUN)
    assert record["uri"].startswith("nbds://")
    key = Path(exports.folder, "e.psk")
    assert key.stat().st_mode & 0o077 == 0
    assert exports.key("e") in key.read_text()
    assert read_size(record["uri"]).returncode != 0
    assert read_size(record["uri"].replace("nbds://openisb@", "nbd://")).returncode != 0
    assert read_size(f"{record['uri']}?tls-psk-file={key}").stdout.strip() == str(1024**2)


def test_an_export_outlives_its_maker_and_is_ended_by_name(exports, lun):
    maker = multiprocessing.Process(target=exports.start, args=("e", lun, "127.0.0.1", False, True, RUN))
    maker.start()
    maker.join()
    (record,) = exports.list()
    assert record["running"]
    assert read_size(record["uri"]).stdout.strip() == str(1024**2)
    exports.stop("e")
    assert exports.list() == []
    assert not processes.is_running(record)
    assert os.listdir(exports.folder) == []


def test_an_export_that_cannot_start_leaves_nothing(exports):
    with pytest.raises(ExportError, match="does not exist"):
        exports.start("e", "/nowhere/at/all", "127.0.0.1", False, True, RUN)
    assert exports.list() == []


def test_an_export_that_everybody_could_read_is_refused(exports, lun, monkeypatch):
    monkeypatch.setattr(nbd_exports, "_resolve", lambda address: [(2, 1, 6, "", ("192.0.2.1", 0))])
    with pytest.raises(ExportError, match="use TLS"):
        exports.start("e", lun, "storage1", False, True, RUN)


def test_an_address_of_another_host_is_refused(exports, lun):
    with pytest.raises(ExportError, match="cannot listen at 192.0.2.1"):
        exports.start("e", lun, "192.0.2.1", True, True, RUN)
