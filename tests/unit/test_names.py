# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A name with a line feed at its end is not that name: files, sockets and lines that are made of it would be others."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control import inventory
from ansible_collections.openisb.backup.plugins.module_utils.host import volumes
from ansible_collections.openisb.backup.plugins.module_utils.journal import journal
from ansible_collections.openisb.backup.plugins.module_utils.luns import errors as luns_errors
from ansible_collections.openisb.backup.plugins.module_utils.luns import names as luns_names
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import records
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import settings
from ansible_collections.openisb.backup.plugins.module_utils.storage import clones, snapshots
from ansible_collections.openisb.backup.plugins.modules import nbd_export, saveset_export

RUN, DRILL, SERIAL = "isb-20261123T021500Z-4f1c2a", "idr-20261123T021500Z-4f1c2a", "6000000000000001"
Validator = Callable[[str], object]


def intermediary(name: str) -> settings.Settings:
    values = {"executable": "/mbf", "user": "u", "password_file": "/p"}
    return settings.Settings({**values, "intermediaries": [name]})


VALIDATORS: list[tuple[Validator, str, type[Exception]]] = [
    (journal.check_run_id, RUN, journal.JournalError),
    (journal.check_run_id, DRILL, journal.JournalError),
    (records.check_run_id, RUN, records.HolderError),
    (luns_names.checked, "fs1.m", luns_errors.LunError),
    (lambda name: clones.Clones("file", "/nonexistent", name), DRILL, clones.CloneError),
    (intermediary, "listener:2987", settings.OptionError),
]


@pytest.mark.parametrize(("validator", "name", "error"), VALIDATORS)
def test_a_line_feed_is_no_part_of_a_name(validator: Validator, name: str, error: type[Exception]) -> None:
    validator(name)
    with pytest.raises(error):
        validator(f"{name}\n")


@pytest.mark.parametrize("pattern", [nbd_export.NAME, saveset_export.NAME])
def test_no_export_has_one(pattern: re.Pattern[str]) -> None:
    assert pattern.fullmatch("fs1.m") and not pattern.fullmatch("fs1.m\n")


def test_no_volume_in_the_inventory_has_one() -> None:
    def problems(name: str, serial: str) -> str:
        volume = {"name": name, "serial": serial, "mount": "/srv/m"}
        hosts = {"fs1": {"isb_volumes": [volume], "isb_drivers": [{"name": "filesystem"}]}}
        return "; ".join(inventory.inventory_problems(["fs1"], hosts, []))

    assert "cannot name a volume" not in problems("m", SERIAL) and "hex digits" not in problems("m", SERIAL)
    assert "cannot name a volume" in problems("m\n", SERIAL)
    assert "hex digits" in problems("m", f"{SERIAL}\n")


def test_no_lun_has_one() -> None:
    with pytest.raises(volumes.VolumeError, match="no LUN with serial"):
        volumes.device_of("m", "ffffffffffffffff")
    with pytest.raises(volumes.VolumeError, match="lowercase hex digits"):
        volumes.device_of("m", "ffffffffffffffff\n")


def test_no_snapshot_has_one(tmp_path: Path) -> None:
    for name in (RUN, f"{RUN}\n"):
        (tmp_path / name).mkdir()
    folder = snapshots.SnapshotFolder("file", str(tmp_path))
    assert [entry["run_id"] for entry in folder.snapshots()] == [RUN]
    with pytest.raises(snapshots.SnapshotError, match="nothing was deleted"):
        folder.delete(f"{RUN}\n")
    assert (tmp_path / f"{RUN}\n").is_dir()
