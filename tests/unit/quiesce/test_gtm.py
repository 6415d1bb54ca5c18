# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gtm driver against a real GT.M database."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import mounts
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import drivers, manage
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers import gtm, gtm_header
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import HolderError

from .conftest import GTM_DIST, Database, Holds, is_frozen, wait_for

NOBODY = Surroundings({})


@pytest.fixture
def make_driver(database: Database, build: Callable[..., Any]) -> Callable[..., Any]:
    def make(marks: dict[str, Any] | None = None, **options: Any) -> Any:
        return build(database.description(**options), marks)

    return make


@pytest.mark.root
@pytest.mark.parametrize("prepared", [True, False])
def test_updates_wait_until_the_thaw(database: Database, make_driver: Callable[..., Any], prepared: bool) -> None:
    driver = make_driver()
    assert "can freeze BREG, DEFAULT of" in driver.check(NOBODY)
    if prepared:
        driver.prepare()
        assert driver._reader is not None
    driver.freeze()
    assert database.writes_wait("^A")
    assert database.writes_wait("^B")
    assert driver.status() == {"frozen": True, "regions": ["BREG", "DEFAULT"]}
    assert driver.thaw() == []
    assert not database.writes_wait("^A")
    assert not database.writes_wait("^B")
    assert driver.status() == {"frozen": False, "regions": []}
    assert driver.thaw() == []


@pytest.mark.root
def test_the_files_are_complete_and_still_while_frozen(database: Database, make_driver: Callable[..., Any]) -> None:
    writer = database.start("for i=1:1 set ^A=i,^B=i hang 0.001")
    try:
        wait_for(lambda: database.value("$get(^B)"))
        driver = make_driver()
        driver.freeze()
        before = [path.read_bytes() for path in sorted(database.folder.glob("*.dat"))]
        time.sleep(1.3)  # longer than GT.M's flush timer
        assert [path.read_bytes() for path in sorted(database.folder.glob("*.dat"))] == before
        count = database.value("^A-^B")
        assert count in ("0", "1")
        assert driver.thaw() == []
        wait_for(lambda: int(database.value("^A")) > 0)
    finally:
        writer.kill()
        writer.wait()


@pytest.mark.root
def test_one_region_leaves_the_other_alone(database: Database, make_driver: Callable[..., Any]) -> None:
    driver = make_driver(regions=["BREG"])
    driver.freeze()
    assert database.writes_wait("^B")
    assert not database.writes_wait("^A")
    driver.thaw()


@pytest.mark.root
def test_another_process_thaws_by_the_marks(database: Database, make_driver: Callable[..., Any]) -> None:
    driver = make_driver()
    noted: list[Any] = []
    driver.on_marks(lambda: noted.append(dict(driver.marks)))
    driver.freeze()
    assert any("regions" in marks for marks in noted)
    assert make_driver(marks=driver.marks).thaw() == []
    assert not database.writes_wait()


@pytest.mark.root
def test_a_freeze_of_somebody_else_is_found_and_left_alone(database: Database, make_driver: Callable[..., Any]) -> None:
    driver = make_driver()
    driver.prepare()
    database.run("mupip", "freeze", "-on", "BREG")
    with pytest.raises(
        DriverError, match="region BREG of .* is already frozen by process [0-9]+, which is gone"
    ) as told:
        driver.check(NOBODY)
    with pytest.raises(DriverError, match="already frozen"):
        driver.freeze()
    assert driver.thaw() == []
    assert database.writes_wait("^B")
    command = str(told.value).split("'")[1]
    assert os.system(f"{command} >/dev/null 2>&1") == 0
    assert not database.writes_wait("^B")
    assert "can freeze" in driver.check(NOBODY)


@pytest.mark.root
@pytest.mark.parametrize("prepared", [True, False])
def test_a_thaw_by_somebody_else_is_told(database: Database, make_driver: Callable[..., Any], prepared: bool) -> None:
    driver = make_driver()
    if prepared:
        driver.prepare()
    driver.freeze()
    database.run("mupip", "freeze", "-off", "DEFAULT")
    assert driver.thaw() == ["gtm: region DEFAULT was unfrozen by somebody else"]
    assert not database.writes_wait("^B")


@pytest.mark.root
def test_a_thaw_and_a_new_freeze_by_somebody_else_is_told(database: Database, make_driver: Callable[..., Any]) -> None:
    driver = make_driver()
    driver.prepare()
    driver.freeze()
    database.run("mupip", "freeze", "-off", "DEFAULT")
    database.run("mupip", "freeze", "-on", "DEFAULT")
    assert driver.thaw() == ["gtm: region DEFAULT was unfrozen by somebody else"]
    assert database.writes_wait("^A")  # not ours to thaw


@pytest.mark.root
def test_what_cannot_be_frozen_is_refused_before(
    database: Database, make_driver: Callable[..., Any], tmp_path: Path
) -> None:
    def check(**options: Any) -> str:
        with pytest.raises(DriverError) as caught:
            make_driver(**options).check(NOBODY)
        return str(caught.value)

    assert f"there is no mupip at {tmp_path}/mupip" in check(gtm_dist=str(tmp_path))
    assert "REGION not found: NOPE" in check(regions=["NOPE"])
    assert "Cannot access global directory" in check(gbldir=str(tmp_path / "no.gld"))
    (tmp_path / "b.dat").rename(tmp_path / "b.away")
    assert f"{tmp_path}/b.dat corresponding to region BREG cannot be found" in check()
    (tmp_path / "b.away").rename(tmp_path / "b.dat")


@pytest.mark.slow
@pytest.mark.root
def test_a_killed_holder_leaves_no_freeze(database: Database, holds: Holds) -> None:
    holds.arm(descriptions=[database.description()])
    assert holds.ask("freeze")["ok"]
    assert database.writes_wait()
    holds.kill_holder()
    holds.wait_for_partner()
    assert not database.writes_wait()


@pytest.mark.slow
@pytest.mark.root
def test_a_dead_hold_is_thawed_from_its_record(database: Database, holds: Holds) -> None:
    holds.arm(descriptions=[database.description()])
    holds.ask("freeze")
    holds.kill_all_three()
    wait_for(lambda: holds.find().leftover)
    assert database.writes_wait()
    assert manage.thaw(holds.run_dir, holds.find(), 10)["ok"]
    assert not database.writes_wait()


@pytest.mark.slow
@pytest.mark.root
def test_a_copy_in_the_place_of_a_frozen_file_is_not_thawed_in_its_stead(
    database: Database, holds: Holds, tmp_path: Path
) -> None:
    """As a clone of the volume would be, mounted over it: its header tells of the same freeze."""
    file, away = tmp_path / "b.dat", tmp_path / "b.away"
    holds.arm(descriptions=[database.description()])
    holds.ask("freeze")
    holds.kill_all_three()
    file.rename(away)
    shutil.copy(away, file)
    answer = manage.thaw(holds.run_dir, holds.find(), 2)
    assert not answer["ok"]
    assert f"{file} is not the file that was frozen" in answer["error"]
    assert holds.find().leftover
    away.rename(file)
    assert manage.thaw(holds.run_dir, holds.find(), 10)["ok"]
    assert not database.writes_wait("^B")


@pytest.mark.slow
@pytest.mark.root
def test_what_an_earlier_run_left_stops_the_next_one_before_anything_is_frozen(
    database: Database, make_filesystem: Callable[[str], Path], holds: Holds
) -> None:
    holds.arm(descriptions=[database.description()])
    holds.ask("freeze")
    holds.kill_all_three()
    wait_for(lambda: holds.find().leftover)
    shutil.rmtree(holds.run_dir)  # as a restart of the server does
    mount = make_filesystem("ext4")
    next_run = [{"name": "filesystem", "mounts": [str(mount)]}, database.description()]
    with pytest.raises(HolderError, match="region BREG, DEFAULT of .* is already frozen by process") as told:
        holds.arm("r2", next_run)
    assert not is_frozen(mount)
    assert manage.find(holds.run_dir, "r2") is None
    command = str(told.value).split("'")[1]
    assert os.system(f"{command} >/dev/null 2>&1") == 0
    holds.arm("r2", next_run)
    assert holds.ask("freeze", "r2")["ok"]
    assert holds.ask("thaw", "r2")["hold_unbroken"]


@pytest.mark.slow
@pytest.mark.root
def test_a_database_that_does_not_run_is_frozen_too(database: Database, holds: Holds) -> None:
    database.run("mumps", "-run", "%XCMD", "set (^A,^B)=1")
    database.run("mupip", "rundown", "-region", "*")
    (found,) = manage.check(holds.run_dir, drivers.build([database.description()]))
    assert found["message"].startswith("can freeze BREG, DEFAULT of")
    holds.arm(descriptions=[database.description()])
    assert holds.ask("freeze")["hold_unbroken"]
    assert database.writes_wait("^A")
    assert database.writes_wait("^B")
    assert holds.ask("thaw")["hold_unbroken"]
    assert not database.writes_wait("^A")


DUMP = """\
Fileheader dump of region BREG
Dumping fileheader of /srv/b 1.dat
record("sgmnt_data.freeze")=4294967295
record("sgmnt_data.freeze_on_fail")=0
record("sgmnt_data.image_count")=4711
Fileheader dump of region DEFAULT
Dumping fileheader of /srv/d.dat
record("sgmnt_data.freeze")=0
record("sgmnt_data.image_count")=0
"""


def test_headers_are_read() -> None:
    assert gtm_header.parse_dump(DUMP) == [
        gtm_header.Region("BREG", "/srv/b 1.dat", 4294967295, 4711),
        gtm_header.Region("DEFAULT", "/srv/d.dat", 0, 0),
    ]
    assert gtm_header.parse_dump("%GTM-E-NOREGION") == []


def test_places_count_only_when_all_is_known() -> None:
    both = "sgmnt_data.freeze=96,4\nsgmnt_data.image_count=100,4\n"
    assert gtm_header.parse_places(both) == {"freeze": 96, "image_count": 100}
    assert gtm_header.parse_places(both.replace("100,4", "100,8")) == {}
    assert gtm_header.parse_places("sgmnt_data.freeze=96,4\n") == {}


def test_a_file_that_is_no_database_tells_nothing(tmp_path: Path) -> None:
    file = tmp_path / "x.dat"
    file.write_bytes(b"\0" * 8192)
    region = gtm_header.Region("X", str(file), 0, 0)
    assert gtm_header.HeaderReader([region], {"freeze": 96, "image_count": 100}).read() == []


def test_its_own_files_must_not_be_frozen(tmp_path: Path) -> None:
    driver = drivers.build([{"name": "gtm", "gtm_dist": GTM_DIST, "gbldir": str(tmp_path / "m.gld")}])[0]
    assert GTM_DIST in driver.paths().values()


@pytest.mark.root
def test_nothing_writes_to_the_database_while_its_filesystem_is_frozen(
    database: Database, make_driver: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = make_driver(timeout=3)
    driver.prepare()
    driver.freeze()
    device = mounts.mount_of(str(database.folder), mounts.current()).device
    frozen = {device: "/srv/m"}
    driver.may_be_frozen = lambda: frozen
    with monkeypatch.context() as without:
        without.setattr(gtm, "run", None)  # no program is started
        with pytest.raises(DriverError, match=r"^gtm: /srv/m is not thawed yet: the database is unfrozen once it is"):
            driver.thaw()
    assert database.writes_wait()
    thaw = threading.Thread(target=driver.thaw)
    thaw.start()
    time.sleep(0.3)
    assert thaw.is_alive()
    frozen.clear()
    thaw.join(5)
    assert not database.writes_wait()
    assert driver.marks == {}
