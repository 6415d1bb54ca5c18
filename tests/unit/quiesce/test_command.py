# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command driver with scripts that freeze a file, fail, hang, and are late."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.host.processes import identity, is_running
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import manage
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import HolderError

from .conftest import Holds, freeze_in_background, wait_for

NOBODY = Surroundings({})
Build = Callable[..., Any]

SCRIPT = """\
#!/bin/sh
# Frozen is what has the file `frozen`. $1 is what to do.
cd {folder} || exit 9
echo "$1 $OPENISB_RUN_ID $COLOUR" >>log
if [ -e "$1.sh" ]; then . "./$1.sh"; fi
case $1 in
    freeze) touch frozen ;;
    thaw) rm -f frozen ;;
    status) [ -e frozen ] ;;
    check) echo "all well"; [ ! -e unwell ] ;;
esac
"""


class Site:
    """A site's script in a folder; ``says`` puts something in the way of one of its commands."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.script = folder / "quiesce"
        self.script.write_text(SCRIPT.format(folder=folder))
        self.script.chmod(0o755)

    def says(self, command: str, text: str) -> None:
        (self.folder / f"{command}.sh").write_text(text + "\n")

    def frozen(self) -> bool:
        return (self.folder / "frozen").exists()

    def log(self) -> list[str]:
        return [line.split()[0] for line in (self.folder / "log").read_text().splitlines()]

    def description(self, *commands: str, **options: Any) -> dict[str, Any]:
        chosen = {kind: [str(self.script), kind] for kind in ("freeze", "thaw", *commands)}
        return {"name": "command", **chosen, **options}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@pytest.mark.parametrize("commands", [(), ("status",), ("status", "check")])
def test_from_check_to_thaw(site: Site, build: Build, commands: tuple[str, ...]) -> None:
    driver = build(site.description(*commands))
    found = driver.check(NOBODY)
    said = ": all well" if "check" in commands else ""
    assert found == f"can freeze with '{site.script} freeze'{said}"
    driver.prepare()
    driver.freeze()
    assert site.frozen()
    assert driver.marks["held"] is True
    assert driver.status() == {"frozen": True if "status" in commands else None}
    assert driver.thaw() == []
    assert not site.frozen()
    assert driver.marks == {}
    assert driver.thaw() == []
    assert site.log().count("thaw") == 1


def test_what_the_commands_find_in_their_environment(site: Site, build: Build) -> None:
    driver = build(site.description(environment={"COLOUR": "green"}))
    driver.run_id = "r1"
    site.says("freeze", "env >seen; pwd >where")
    driver.freeze()
    assert (site.folder / "log").read_text() == "freeze r1 green\n"
    names = {line.partition("=")[0] for line in (site.folder / "seen").read_text().splitlines()}
    assert names - {"PWD", "OLDPWD", "SHLVL", "_"} == {"HOME", "LC_ALL", "PATH", "COLOUR", "OPENISB_RUN_ID"}


@pytest.mark.root
def test_commands_run_as_the_user(site: Site, build: Build, open_folder: Path) -> None:
    elsewhere = Site(open_folder)
    open_folder.chmod(0o777)
    elsewhere.says("freeze", "id -un >who; echo $HOME >>who")
    driver = build(elsewhere.description(user="nobody"))
    assert "can freeze" in driver.check(NOBODY)
    driver.freeze()
    assert (open_folder / "who").read_text().splitlines() == ["nobody", "/nonexistent"]
    elsewhere.script.chmod(0o700)
    assert f"{elsewhere.script} cannot be executed by nobody: use chmod" in refusal(driver)


def refusal(driver: Any) -> str:
    with pytest.raises(DriverError) as caught:
        driver.check(NOBODY)
    return str(caught.value)


def test_what_cannot_be_frozen_is_refused_before(site: Site, build: Build, tmp_path: Path) -> None:
    def told(**options: Any) -> str:
        return refusal(build({**site.description("status", "check"), **options}))

    assert told(thaw=["/nowhere/thaw"]) == "command: there is no file /nowhere/thaw: put it there, or correct 'thaw'"
    assert f"there is no file {tmp_path}" in told(check=[str(tmp_path)])
    plain = tmp_path / "plain"
    plain.touch()
    assert f"{plain} cannot be executed: use chmod, or correct 'freeze'" in told(freeze=[str(plain)])
    assert "there is no user nobody-here" in told(user="nobody-here")
    site.says("status", "echo it is blurred; exit 7")
    assert "quiesce status' does not report whether it is frozen: it is blurred" in told()
    site.says("status", "")
    (tmp_path / "unwell").touch()
    assert "quiesce check' failed (exit status 1): all well" in told()
    (tmp_path / "frozen").touch()
    assert (
        f"it is already frozen by somebody else: wait until that ends, or thaw it with '{site.script} thaw'" in told()
    )
    assert set(site.log()) == {"status", "check"}


@pytest.mark.root
def test_commands_on_a_frozen_filesystem_are_refused(
    make_filesystem: Callable[[str], Path], tmp_path: Path, build: Build
) -> None:
    mount = make_filesystem("ext4")
    link = tmp_path / "link"
    link.symlink_to(Site(mount).script)
    for commands in ({"freeze": [str(mount / "quiesce")], "thaw": ["/bin/true"]}, {"thaw": [str(link)]}):
        site = build({"name": "command", "freeze": ["/bin/true"], **commands})
        filesystem = build({"name": "filesystem", "mounts": [str(mount)]})
        own, other = manage.check(str(tmp_path), [site, filesystem])
        assert own["ok"]
        assert f"{mount} must not be frozen, because " in other["message"]
        assert " command) is on it" in other["message"]


def test_a_failed_freeze_keeps_what_was_said_and_is_thawed(site: Site, build: Build) -> None:
    driver = build(site.description())
    site.says("freeze", "touch frozen; echo the disk; echo is full >&2; exit 3")
    with pytest.raises(DriverError, match=r"quiesce freeze' failed \(exit status 3\): the disk\nis full"):
        driver.freeze()
    assert site.frozen()
    driver.thaw()
    assert not site.frozen()


def test_other_statuses_can_mean_success(site: Site, build: Build) -> None:
    site.says("freeze", "touch frozen; exit 10")
    site.says("thaw", "rm -f frozen; exit 1")
    driver = build(site.description(freeze_statuses=[0, 10], thaw_statuses=[1]))
    driver.freeze()
    assert driver.thaw() == []


def test_a_status_that_contradicts_is_a_failure(site: Site, build: Build) -> None:
    site.says("freeze", "exit 0")
    driver = build(site.description("status"))
    with pytest.raises(DriverError, match="after the freeze, '.*quiesce status' does not report it frozen"):
        driver.freeze()
    site.says("freeze", "")
    site.says("thaw", "exit 0")
    driver.freeze()
    with pytest.raises(DriverError, match="after the thaw, '.*quiesce status' still reports it frozen"):
        driver.thaw()
    assert driver.marks["held"]


def test_a_thaw_by_somebody_else_is_told(site: Site, build: Build) -> None:
    driver = build(site.description("status"))
    driver.freeze()
    (site.folder / "frozen").unlink()
    assert driver.thaw() == ["command: it was thawed by somebody else"]
    assert site.log()[-2:] == ["thaw", "status"]  # it is thawed all the same


def test_a_status_that_hangs_keeps_no_thaw(site: Site, build: Build) -> None:
    driver = build(site.description("status", timeout=1.5))
    driver.freeze()
    site.says("status", "sleep 60")
    begun = time.monotonic()
    assert driver.thaw() == []
    assert not site.frozen()
    assert time.monotonic() - begun < 4


def test_a_freeze_that_takes_too_long_is_ended_with_all_that_it_started(site: Site, build: Build) -> None:
    driver = build(site.description(timeout=0.5))
    site.says("freeze", "trap '' TERM; (trap '' TERM; sleep 2; touch late) & echo waiting; wait; sleep 60")
    with pytest.raises(DriverError, match=r"was ended: it took longer than 0.5 s: waiting"):
        driver.freeze()
    time.sleep(1.5)
    assert not (site.folder / "late").exists()
    assert driver.marks["held"]


def test_a_thaw_while_the_freeze_hangs_waits_for_its_end(site: Site, build: Build) -> None:
    driver = build(site.description(timeout=30))
    site.says("freeze", "touch begun; sleep 60")
    ended = freeze_in_background(driver)
    wait_for((site.folder / "begun").exists)
    driver.cancel()
    driver.thaw()
    assert "it was cancelled" in ended()
    driver.thaw()
    assert (driver.marks, site.log()[-1]) == ({}, "thaw")


def test_what_the_freeze_leaves_running_goes_on(site: Site, build: Build) -> None:
    driver = build(site.description())
    site.says("freeze", "sleep 30 & echo $! >helper; touch frozen; exit 0")
    begun = time.monotonic()
    driver.freeze()
    assert time.monotonic() - begun < 2  # although the helper has the output open
    helper = int((site.folder / "helper").read_text())
    os.kill(helper, 0)
    site.says("thaw", "kill $(cat helper)")
    assert driver.thaw() == []
    wait_for(lambda: not is_running(identity(helper)))


def test_a_killed_holder_is_thawed_by_its_partner(site: Site, holds: Holds) -> None:
    holds.arm(descriptions=[site.description("status")])
    assert holds.ask("freeze")["ok"]
    assert site.frozen()
    holds.kill_holder()
    wait_for(lambda: not site.frozen())
    holds.wait_for_partner()
    assert "thaw r1" in (site.folder / "log").read_text()


def test_a_killed_holder_takes_a_freeze_with_it_that_had_not_ended(site: Site, holds: Holds) -> None:
    site.says("freeze", "(sleep 1; touch frozen) & touch begun; wait")
    holds.arm(descriptions=[site.description()])
    with pytest.raises(HolderError):
        holds.ask("freeze", timeout=0.1)
    wait_for((site.folder / "begun").exists)
    holds.kill_holder()
    wait_for(lambda: site.log()[-1] == "thaw")
    time.sleep(1.2)
    assert not site.frozen()


def test_what_both_left_is_thawed_from_the_record(site: Site, holds: Holds) -> None:
    site.says("freeze", "touch frozen; sleep 30; touch frozen")
    holds.arm(descriptions=[site.description()])
    with pytest.raises(HolderError):
        holds.ask("freeze", timeout=0.1)
    wait_for(site.frozen)
    holds.kill_all_three()
    wait_for(lambda: holds.find().leftover)
    command = holds.find().record["drivers"][0]["marks"]["process"]
    assert is_running(command)
    assert manage.thaw(holds.run_dir, holds.find(), 10)["ok"]
    assert not site.frozen()
    assert not is_running(command)


def test_a_thaw_that_fails_is_tried_again(site: Site, holds: Holds) -> None:
    holds.arm(descriptions=[site.description()])
    holds.ask("freeze")
    site.says("thaw", "echo not now; exit 1")
    answer = holds.ask("thaw")
    assert not answer["ok"]
    assert answer["error"].endswith("quiesce thaw' failed (exit status 1): not now")
    site.says("thaw", "")
    wait_for(lambda: not site.frozen())
    wait_for(lambda: holds.ask("thaw")["ok"])


@pytest.mark.slow
def test_a_chatty_command_does_not_break_the_answer(site: Site, holds: Holds) -> None:
    site.says("freeze", "head -c 1000000 /dev/zero | tr '\\0' x; echo; echo the end; exit 1")
    holds.arm(descriptions=[site.description()])
    answer = holds.ask("freeze")
    assert (answer["ok"], answer["state"]) == (False, "failed")
    assert answer["error"].endswith("the end")
    assert len(answer["error"]) < 3000
