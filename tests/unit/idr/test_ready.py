# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a DR host is ready, and what reading the savesets says of each server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control.drill import content
from ansible_collections.openisb.backup.plugins.module_utils.control.drill.volumes import by_dr_host, obstacles
from ansible_collections.openisb.backup.plugins.module_utils.luns import commands as luns_commands
from ansible_collections.openisb.backup.plugins.module_utils.luns import mounts as luns_mounts
from ansible_collections.openisb.backup.plugins.module_utils.luns import ready as luns_ready

DRILL = "idr-20261128T210000Z-4f1c2a"
GOOD = {"problems": [], "bytes": 5 << 20, "seconds": 1.5}
DAMAGE = {"saveset": "s", "volume": "fs1/m", "object": "pack 3f", "problem": "it is missing"}


def volume(place: str = "", target: str = "", filesystem: str = "ext4", size: int = 1 << 20) -> dict[str, Any]:
    return {
        "volume": "fs1/m",
        "name": "m",
        "serial": "6f70656e6973ffff",
        "size": size,
        "dr_mount": place,
        "target": target,
        "filesystem": filesystem,
    }


def found(
    volumes: list[dict[str, Any]], source: str = "instant", luns: Any = (), scratch: str = "/var/tmp"
) -> list[str]:
    return luns_ready.problems(volumes, source, "test", scratch, list(luns), {})


def test_a_place_that_is_free_or_empty_is_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert luns_ready.place_problems(volume(str(tmp_path / "missing")), []) == []
    assert luns_ready.place_problems(volume(str(tmp_path / "empty")), []) == []
    assert luns_ready.place_problems(volume(), []) == []


def test_nothing_is_hidden_by_a_mount(tmp_path: Path) -> None:
    (tmp_path / "notes").write_text("of somebody")
    (folder,) = luns_ready.place_problems(volume(str(tmp_path)), [])
    assert "is not empty, and the mount would hide its files" in folder
    (file,) = luns_ready.place_problems(volume(str(tmp_path / "notes")), [])
    assert "is not a directory" in file


def test_a_place_in_use_names_the_drill_or_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    mount = luns_mounts.Mount(1, "7:1", "/srv/idr/fs1/srv/m", "ext4", source="/dev/loop1")
    monkeypatch.setattr(luns_mounts, "current", lambda: [mount])
    lun = {"drill": DRILL, "source": "nbds://b:1/x", "mounts": [{"path": mount.point}]}
    (ours,) = luns_ready.place_problems(volume(mount.point), [lun])
    assert f"drill {DRILL} keeps it up" in ours and f"-e idr_end={DRILL}" in ours
    (other,) = luns_ready.place_problems(volume(mount.point), [])
    assert "/dev/loop1 is mounted there: unmount it" in other


def test_a_target_that_a_drill_uses_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "standby.img"
    (tmp_path / "link").symlink_to(target)
    lun = {"drill": DRILL, "source": str(target), "mounts": []}
    (text,) = luns_ready.target_problems(volume(target=str(tmp_path / "link")), [lun])
    assert f"is in use by drill {DRILL}" in text
    assert luns_ready.target_problems(volume(target="/dev/other"), [lun]) == []


def test_production_s_own_lun_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ansible_collections.openisb.backup.plugins.module_utils.host.volumes.BY_ID", str(tmp_path))
    assert luns_ready.production_problems(volume()) == []
    (tmp_path / "wwn-0x6f70656e6973ffff").symlink_to("/dev/null")
    (text,) = luns_ready.production_problems(volume())
    assert "production's own LUN 6f70656e6973ffff is attached to this host (/dev/null)" in text


def test_missing_programs_are_named_with_their_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(luns_commands, "PATH", str(tmp_path))
    texts = luns_ready.missing_programs([volume(), volume(filesystem="fuseblk")], "instant", "test")
    lacking = {text.split()[0]: text.rpartition(" ")[2] for text in texts if "is not installed" in text}
    assert lacking["nbdkit"] == "nbdkit" and lacking["e2fsck"] == "e2fsprogs"
    assert lacking["ntfsfix"] == lacking["ntfs-3g"] == "ntfs-3g"
    assert "nbdfuse" in lacking


def test_room_is_for_what_is_restored_to_files(tmp_path: Path) -> None:
    large = volume(size=1 << 62)
    (text,) = luns_ready.room_problems([large], "restore", str(tmp_path / "not" / "there"))
    assert "free disk space, give the volumes an idr_target, or use idr_source=instant" in text
    assert luns_ready.room_problems([dict(large, target="/dev/x")], "restore", "/var/tmp") == []
    assert luns_ready.room_problems([large], "instant", "/var/tmp") == []


def test_obstacles_name_their_host() -> None:
    asked = [
        {"item": "dr1", "problems": ["no room"]},
        {"item": "dr2", "unreachable": True, "msg": "Connection\ntimed out"},
    ]
    assert obstacles(asked) == ["dr1: no room", "dr2: it cannot be reached (Connection timed out)"]
    assert obstacles([{"item": "dr1", "problems": []}]) == []


def test_a_target_that_a_restore_would_refuse_is_told_with_the_rest(tmp_path: Path) -> None:
    """Of each volume, and only where something is restored there."""
    (tmp_path / "notes").write_text("of somebody")
    options = {"overwrite": [], "state_dir": str(tmp_path / "state"), "run_dir": str(tmp_path / "run")}
    volumes = [volume(target=str(tmp_path / name)) for name in ("notes", "new", "none/there")]

    def refused(source: str, **more: Any) -> list[str]:
        told = luns_ready.problems(volumes, source, "test", "/var/tmp", [], {**options, **more})
        return [text for text in told if "Cannot restore" in text]

    notes, nowhere = refused("restore")
    assert notes.startswith(f"fs1/m: Cannot restore: {tmp_path}/notes: ")
    assert f"there is no folder {tmp_path}/none" in nowhere
    assert refused("instant") == []
    assert not (tmp_path / "new").exists() and (tmp_path / "notes").read_text() == "of somebody"


def test_each_dr_host_gets_its_own_volumes() -> None:
    servers = {
        "fs1": {"dr_host": "dr1", "volumes": [1, 2]},
        "fs2": {"dr_host": "dr2", "volumes": [3]},
        "fs3": {"dr_host": "dr1", "volumes": [4]},
    }
    assert by_dr_host(servers) == {"dr1": [1, 2, 4], "dr2": [3]}


def test_what_is_read_together() -> None:
    servers = {name: {"run_id": run_id} for name, run_id in [("fs1", "a"), ("fs2", "a"), ("fs3", "b")]}
    hostvars = {name: {"isb_backup_server": "b1"} for name in servers}
    assert content.jobs(servers, hostvars) == [
        {"backup_server": "b1", "run_id": "a", "servers": ["fs1", "fs2"]},
        {"backup_server": "b1", "run_id": "b", "servers": ["fs3"]},
    ]


def checks(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    job = {"backup_server": "b1", "run_id": "a", "servers": ["fs1", "fs2"]}
    return {entry["server"]: entry["check"] for entry in content.checks([dict(result, item=job)])}


def test_damage_is_of_the_server_that_it_hurts() -> None:
    assert [check["ok"] for check in checks(GOOD).values()] == [True, True]
    hurt = checks(dict(GOOD, problems=[DAMAGE], failed=True))
    assert (hurt["fs1"]["ok"], hurt["fs2"]["ok"]) == (False, True)
    assert "damage found: fs1/m: pack 3f: it is missing" in hurt["fs1"]["detail"]


def test_damage_of_no_volume_is_everybody_s_and_silence_is_no_proof() -> None:
    both = checks(dict(GOOD, problems=[dict(DAMAGE, volume=None)], failed=True))
    assert not both["fs1"]["ok"] and not both["fs2"]["ok"]
    broken = checks({"failed": True, "msg": "Repository /r: wrong key"})
    assert not broken["fs1"]["ok"] and "wrong key" in broken["fs1"]["detail"]
