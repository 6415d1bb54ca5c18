# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The iris driver against a program that answers as IRIS is documented to."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings

from .conftest import Holds, freeze_in_background, wait_for

NOBODY = Surroundings({})
Build = Callable[..., Any]

STAND_IN = """\
#!/bin/sh
# Suspended is what has the file `suspended`. Exits with 5 for done or suspended, 3 for failed or not suspended.
cd {folder} || exit 9
echo "$*" >>log
[ "$1 $2 $3" = "session PROD -U%SYS" ] || exit 1
call=${{4#"##Class(Backup.General)."}}
name=${{call%%(*}}
if [ -e "$name.sh" ]; then . "./$name.sh"; fi
case $name in
    ExternalFreeze) touch suspended; exit 5 ;;
    ExternalThaw) [ -e suspended ] || exit 3; rm suspended; exit 5 ;;
    IsWDSuspendedExt) if [ -e suspended ]; then exit 5; else exit 3; fi ;;
esac
exit 1
"""


class Instance:
    """The stand-in; ``says`` puts something in the way of one of its calls."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "iris"
        self.program.write_text(STAND_IN.format(folder=folder))
        self.program.chmod(0o755)

    def says(self, call: str, text: str) -> None:
        (self.folder / f"{call}.sh").write_text(text + "\n")

    def suspended(self) -> bool:
        return (self.folder / "suspended").exists()

    def calls(self) -> list[str]:
        return [line.rpartition(").")[2] for line in (self.folder / "log").read_text().splitlines()]

    def description(self, **options: Any) -> dict[str, Any]:
        return {"name": "iris", "instance": "PROD", "iris": str(self.program), **options}


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    return Instance(tmp_path)


def test_from_check_to_thaw(instance: Instance, build: Build) -> None:
    driver = build(instance.description())
    assert driver.check(NOBODY) == "can freeze instance PROD of IRIS"
    driver.freeze()
    assert instance.suspended()
    assert driver.status() == {"frozen": True}
    assert driver.thaw() == []
    assert not instance.suspended()
    assert driver.thaw() == []
    status = "IsWDSuspendedExt()"
    assert instance.calls() == [status, "ExternalFreeze()", status, status, "ExternalThaw()"]


@pytest.mark.parametrize(
    ("options", "call"),
    [
        ({"external_freeze_timeout": 900}, "ExternalFreeze(,,,,,,900)"),
        ({"wd_suspend_limit": 60}, "ExternalFreeze(,,,,,,,,,60)"),
        ({"external_freeze_timeout": 900, "wd_suspend_limit": 60.0}, "ExternalFreeze(,,,,,,900,,,60)"),
    ],
)
def test_limits_go_to_their_arguments(instance: Instance, build: Build, options: dict[str, Any], call: str) -> None:
    driver = build(instance.description(**options))
    driver.freeze()
    assert instance.calls() == [call]


def refusal(driver: Any) -> str:
    with pytest.raises(DriverError) as caught:
        driver.check(NOBODY)
    return str(caught.value)


def test_what_cannot_be_frozen_is_refused_before(instance: Instance, build: Build) -> None:
    assert "there is no program /nowhere/iris" in refusal(build(instance.description(iris="/nowhere/iris")))
    other = refusal(build(instance.description(instance="TEST")))
    assert "instance TEST does not report whether it is frozen: make sure that it runs" in other
    instance.says("IsWDSuspendedExt", "echo Access Denied; exit 1")
    assert refusal(build(instance.description())).endswith("without a password: Access Denied")
    instance.says("IsWDSuspendedExt", "exit 5")
    told = refusal(build(instance.description()))
    assert "instance PROD is already frozen by somebody else" in told
    assert f"thaw it with '{instance.program} session PROD -U%SYS '##Class(Backup.General).ExternalThaw()''" in told


@pytest.mark.parametrize("status", [0, 1, 3])
def test_a_freeze_without_its_proof_is_a_failure_and_is_thawed(instance: Instance, build: Build, status: int) -> None:
    instance.says("ExternalFreeze", f"touch suspended; echo no journal; exit {status}")
    driver = build(instance.description())
    with pytest.raises(DriverError, match=rf"iris: the freeze failed \(exit status {status}\): no journal"):
        driver.freeze()
    driver.thaw()
    assert not instance.suspended()


def test_a_thaw_that_finds_nothing_is_a_success(instance: Instance, build: Build) -> None:
    driver = build(instance.description())
    driver.freeze()
    (instance.folder / "suspended").unlink()
    assert driver.thaw() == ["iris: it was thawed by somebody else"]
    assert instance.calls()[-2:] == ["ExternalThaw()", "IsWDSuspendedExt()"]


@pytest.mark.parametrize("answer", ["exit 5", "exit 1", "sleep 60"])
def test_a_thaw_that_fails_is_no_success(instance: Instance, build: Build, answer: str) -> None:
    driver = build(instance.description(timeout=1))
    driver.freeze()
    instance.says("ExternalThaw", "echo busy; exit 3")
    instance.says("IsWDSuspendedExt", answer)
    with pytest.raises(DriverError, match=r"iris: the thaw failed \(exit status 3\): busy"):
        driver.thaw()
    assert driver.marks["held"]


@pytest.mark.slow
def test_a_freeze_that_answers_late_is_given_up_and_thawed(instance: Instance, holds: Holds) -> None:
    instance.says("ExternalFreeze", "(trap '' TERM; sleep 1; touch suspended) & trap '' TERM; wait; exit 5")
    holds.arm(descriptions=[instance.description(timeout=0.5)])
    answer = holds.ask("freeze")
    assert (answer["ok"], "0.5 s" in answer["error"]) == (False, True)
    wait_for(lambda: holds.ask("status")["state"] == "failed")
    time.sleep(1)
    assert not instance.suspended()


def test_a_freeze_that_hangs_can_be_cancelled(instance: Instance, build: Build) -> None:
    instance.says("ExternalFreeze", "touch suspended; sleep 60")
    driver = build(instance.description(timeout=30))
    ended = freeze_in_background(driver)
    wait_for(instance.suspended)
    driver.cancel()
    driver.thaw()
    assert "it was cancelled" in ended()
    driver.thaw()
    assert not instance.suspended()


def test_a_killed_holder_is_thawed_by_its_partner(instance: Instance, holds: Holds) -> None:
    holds.arm(descriptions=[instance.description()])
    assert holds.ask("freeze")["ok"]
    assert instance.suspended()
    holds.kill_holder()
    wait_for(lambda: not instance.suspended())
    holds.wait_for_partner()


def test_a_limit_of_iris_that_ended_the_freeze_is_told(instance: Instance, holds: Holds) -> None:
    holds.arm(descriptions=[instance.description()])
    assert holds.ask("freeze")["hold_unbroken"]
    (instance.folder / "suspended").unlink()
    thawed = holds.ask("thaw")
    assert (thawed["ok"], thawed["hold_unbroken"]) == (True, False)
    assert thawed["error"] == "iris: it was thawed by somebody else"
