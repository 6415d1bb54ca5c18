# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The mbf driver, its library and the module against a program that stands in for MBF."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError, OptionError
from ansible_collections.openisb.backup.plugins.module_utils.host.mounts import Mount
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import drivers, manage, protocol, records
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers import mbf as mbf_driver
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.drivers.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import answers, codes, exposure
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import settings as mbf_settings
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.settings import Settings
from marks import slow

from .conftest import Holds, wait_for

PASSWORD = "s3cret pass$word"
NOBODY = Surroundings({})


class Mbf:
    """A folder with the stand-in, and what to run it with."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        program = folder / "mbf"
        source = Path(__file__).with_name("mbf_stand_in.py")
        program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {source} "$@"\n')
        program.chmod(0o755)
        self.password_file = folder / "password"
        self.password_file.write_text(PASSWORD + "\n")
        self.password_file.chmod(0o600)
        self.plan()

    def plan(self, **steps: Any) -> None:
        for done in self.folder.glob("done-*"):
            done.unlink()
        plan = {command: step if isinstance(step, list) else [step] for command, step in steps.items()}
        (self.folder / "plan.json").write_text(json.dumps(plan))

    def options(self, **more: Any) -> dict[str, Any]:
        return {
            "executable": str(self.folder / "mbf"),
            "intermediaries": ["listener:2987"],
            "user": "backup",
            "password_file": str(self.password_file),
            "on_exposed_password": "warn",
            **more,
        }

    def description(self, **more: Any) -> dict[str, Any]:
        return {"name": "mbf", "timeout": 5, "settle": 1, "seconds": 5, **self.options(**more)}

    def calls(self, command: str = "") -> list[dict[str, Any]]:
        path = self.folder / "calls"
        found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in found if not command or call["arguments"][0] == f"C={command}"]

    def held(self) -> list[str]:
        return sorted(path.name[5:] for path in self.folder.glob("held-*"))


@pytest.fixture
def mbf(tmp_path: Path) -> Mbf:
    return Mbf(tmp_path / "mbf")


@pytest.fixture
def make(mbf: Mbf, build: Callable[..., Any]) -> Callable[..., Any]:
    def made(marks: dict[str, Any] | None = None, **more: Any) -> Any:
        return build(mbf.description(**more), marks)

    return made


# The library


def test_a_census_is_read() -> None:
    text = (
        "MEDITECH Backup Facilitator\r\n\r\nFS1:FS1 E=60AB|,\r\nFS1:FS1 F=60AC|624A,G=60AD|,\r\nFS2:DISK2 E=60AE|\r\n"
    )
    census = answers.parse_census(text)
    assert census.unreadable == []
    assert census.servers == ["FS1", "FS2"]
    assert [tuple(drive) for drive in census.drives] == [
        ("FS1", "E", "60ab", ""),
        ("FS1", "F", "60ac", "624a"),
        ("FS1", "G", "60ad", ""),
        ("FS2", "DISK2-E", "60ae", ""),
    ]


@pytest.mark.parametrize("line", ["FS1:FS1 E=60XY|,", "FS1 E=60|,", "FS1:FS1 E=60|,F=|,", "FS1:FS1 E=6|7|8,"])
def test_a_line_of_a_census_that_cannot_be_read_is_told(line: str) -> None:
    assert answers.parse_census(f"FS0:FS0 E=60|,\n{line}\n").unreadable == [line]


@pytest.mark.parametrize(
    ("code", "output", "proceed", "passes", "sure"),
    [
        (0, "FS1=SUCCESS,\nFS2=SUCCESS,\n", [0], True, True),
        (0, "fs1=Success\nfs2=success", [0], True, True),
        (0, "FS1=SUCCESS,\n", [0], False, False),
        (0, "FS1=SUCCESS,\nFS2=SUCC", [0], False, False),
        (0, "FS1=SUCCESS,\nFS2=FAILED,\n", [0], False, False),
        (0, "FS1=SUCCESS,\nFS2=SUCCESS,\nFS3=SUCCESS,\n", [0], False, False),
        (0, "", [0], False, False),
        (0, "\x00\xff garbage = | ,\n", [0], False, False),
        (1, "FS1=SUCCESS,\nFS2=SUCCESS,\n", [0], False, False),
        (1, "FS1=SUCCESS,\nFS2=UNAVAILABLE,\n", [0, 1], True, True),
        (1, "FS2=UNAVAILABLE,\n", [0, 1], False, False),
        (10, "FS1=SUCCESS,\nFS2=SUCCESS,\n", [0, 10], True, True),
        (10, "FS1=SUCCESS,\n", [0, 10], False, False),
        (11, "FS1=SUCCESS,\n", [0, 11], True, True),
        (9, "FS1=SUCCESS,\nFS2=SUCCESS,\n", [0, 1, 10, 11], False, True),
        *[(code, "FS1=SUCCESS,\nFS2=SUCCESS,\n", [0, 1, 10, 11], False, True) for code in (2, 3, 4, 6, 8, 12)],
        *[(code, "FS1=SUCCESS,\nFS2=SUCCESS,\n", [0, 1, 10, 11], False, False) for code in (5, 7, 13, 127, 255, -11)],
    ],
)
def test_what_an_answer_is_worth(code: int, output: str, proceed: list[int], passes: bool, sure: bool) -> None:
    verdict = codes.judge(codes.Ended(code, output), ["FS1", "FS2"], proceed)
    assert (not verdict.problem, verdict.sure) == (passes, sure)
    assert bool(verdict.degraded) == (passes and code != 0)


@pytest.mark.parametrize(
    ("code", "output", "passes", "without"),
    [
        (0, "FS1=SUCCESS,\nFS2=SUCCESS,\n", True, ()),
        (0, "FS1=SUCCESS,\n", False, ()),
        (1, "FS1=SUCCESS,\nFS2=SUCCESS,\n", True, ()),
        (1, "FS1=SUCCESS,\nFS2=UNAVAILABLE,\n", True, ("FS2",)),
        (10, "FS1=SUCCESS,\nFS2=SUCCESS,\nFS3=SUCCESS,\n", True, ()),
        (10, "FS1=SUCCESS,\n", False, ()),
        (11, "FS2=SUCCESS,\n", True, ("FS1",)),
        (11, "", False, ()),
        *[(code, "FS1=SUCCESS,\nFS2=SUCCESS,\n", False, ()) for code in (2, 3, 4, 5, 6, 7, 8, 9, 12, 13, -9)],
    ],
)
def test_what_an_answer_to_an_unquiesce_is_worth(
    mbf: Mbf, code: int, output: str, passes: bool, without: tuple[str, ...]
) -> None:
    settings = Settings(mbf.options())
    assert settings.proceed == [0]
    verdict = codes.judge(codes.Ended(code, output), ["FS1", "FS2"], settings.released, others=True)
    assert (not verdict.problem, verdict.without) == (passes, without)
    assert verdict.gone == (code == 11 and not output)


def test_what_is_let_pass_is_named() -> None:
    verdict = codes.judge(codes.Ended(11, "FS1=SUCCESS,\n"), ["FS1", "FS2"], [0, 11])
    assert verdict.without == ("FS2",)
    assert verdict.degraded.startswith("MBF: exit code 11")
    assert verdict.degraded.endswith(": FS2")


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"proceed": [0, 2]}, "'proceed' must contain 0"),
        ({"proceed": [1]}, "'proceed' must contain 0"),
        ({"released": [0, 9]}, "'released' must contain 0"),
        ({"released": [1]}, "'released' must contain 0"),
        ({"mode": "tryforce"}, "'mode' must be one of force, quiet"),
        ({"password_by": "magic"}, "'password_by' must be one of"),
        ({"password_by": "session_file"}, "'session_file' is required"),
        ({"user": None}, "'user' is required"),
        ({"password_file": None}, "give either 'password_file' or 'password'"),
        ({"intermediaries": ["a b"]}, "'a b' is not an intermediary"),
        ({"seconds": -1}, "'seconds' must be a whole number"),
        ({"on_exposed_password": "ignore"}, "'on_exposed_password' must be refuse or warn"),
    ],
)
def test_wrong_options_are_refused(mbf: Mbf, wrong: dict[str, Any], text: str) -> None:
    with pytest.raises(OptionError, match=re.escape(text)):
        drivers.build([mbf.description(**wrong)])


def test_the_command_line(mbf: Mbf) -> None:
    given = mbf.options(intermediaries=["a:1", "b"], mode="force", session_file="/x/s", seconds=60)
    assert Settings(given).arguments("Quiesce", "p") == [
        given["executable"], "C=Quiesce", "I=a:1", "I=b", "U=backup", "P=p", "T=60", "M=force", "F=/x/s"
    ]  # fmt: skip
    by_stdin = Settings({**given, "password_by": "stdin"})
    assert not [word for word in by_stdin.arguments("Quiesce", "p") if word.startswith("P=")]
    assert by_stdin.given("p") == "p\n"
    session = Settings(mbf.options(password_by="session_file", session_file="/x/s", user=None, password_file=None))
    assert session.read_password() == ""
    assert session.arguments("Census", "")[-1] == "F=/x/s"


# Who could read the password


@pytest.mark.parametrize(
    ("options", "hidden"),
    [("rw", False), ("rw,hidepid=0", False), ("rw,hidepid=2", True), ("rw,gid=4,hidepid=invisible", True)],
)
def test_what_the_mount_of_proc_promises(options: str, hidden: bool) -> None:
    seen = [Mount(21, "0:20", "/", "ext4"), Mount(22, "0:21", "/proc", "proc", options=options)]
    assert exposure.hidden_by(seen) is hidden


@pytest.mark.root
@pytest.mark.parametrize(("options", "shows"), [("rw", "True"), ("hidepid=2", "False")])
def test_it_is_tried_as_another_user(project_root: Path, options: str, shows: str) -> None:
    code = (
        f"import sys; sys.path[:0] = ['{project_root}/collections']; "
        "from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import exposure; "
        "print(exposure.arguments_show(), exposure._hidden_by_mount())"
    )
    script = f'mount -t proc -o "{options}" proc /proc && exec "$0" -c "$1"'
    inner = ["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, sys.executable, code]
    done = subprocess.run(inner, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [shows, str(shows == "False")]


@pytest.mark.root
def test_another_user_sees_the_password_only_where_preflight_says_so(mbf: Mbf) -> None:
    """What `ps` of another user shows, while MBF runs, is what the check had told before."""
    mbf.plan(census={"sleep": 60})
    command = [str(mbf.folder / "mbf"), "C=Census", f"P={PASSWORD}"]
    script = (
        'mount -t proc -o "$0" proc /proc && cd "$1" && shift && { "$@" >/dev/null & } && sleep 0.5 && '
        "setpriv --reuid=65534 --regid=65534 --clear-groups ps -eww -o args"
    )
    for options, shows in (("rw", True), ("hidepid=2", False)):
        arguments = [options, str(mbf.folder), *command]
        inner = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script, *arguments]
        seen = subprocess.run(inner, stdout=subprocess.PIPE, text=True, check=True, timeout=20).stdout
        assert "ps -eww" in seen
        assert (PASSWORD in seen) is shows


@pytest.mark.root
def test_preflight_refuses_or_warns(mbf: Mbf, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "arguments_show", lambda: True)
    with pytest.raises(DriverError, match="every user of this machine can read the password"):
        make(on_exposed_password="refuse").check(NOBODY)
    assert mbf.calls() == []
    assert "WARNING: every user" in make().check(NOBODY)
    assert "WARNING" not in make(password_by="stdin").check(NOBODY)
    mbf.password_file.chmod(0o640)
    with pytest.raises(DriverError, match="chmod 600"):
        make(password_by="stdin", on_exposed_password="refuse").check(NOBODY)


def test_no_text_has_the_password(mbf: Mbf, make: Callable[..., Any]) -> None:
    echo = [f"cannot log in backup/{PASSWORD}", f"FS1=DENIED P={PASSWORD},"]
    mbf.plan(quiesce={"code": 4, "lines": echo}, unquiesce={"code": 4, "lines": echo})
    driver = make()
    texts = []
    for call in (driver.freeze, driver.thaw):
        with pytest.raises(DriverError) as failed:
            call()
        texts.append(str(failed.value) + repr(failed.value.__cause__) + json.dumps(driver.marks))
    mbf.plan(census={"code": 3, "lines": echo})
    with pytest.raises(DriverError) as failed:
        driver.check(NOBODY)
    texts.append(str(failed.value))
    mbf.plan(quiesce={"sleep": 30})
    slow = make(timeout=0.3, unquiesce_timeout=0.3)  # too short for anything
    slow._servers = ["FS1", "FS2"]
    with pytest.raises(DriverError, match="took longer than 0.3 s") as failed:
        slow.freeze()
    texts.append(str(failed.value))
    assert all(PASSWORD not in text for text in texts)
    assert sum("********" in text for text in texts) == 3


# The driver


def test_a_ring_is_quiesced_and_goes_on(mbf: Mbf, make: Callable[..., Any]) -> None:
    driver = make()
    assert driver.check(NOBODY).startswith("can quiesce FS1, FS2 (2 drives)")
    driver.prepare()
    driver.freeze()
    assert mbf.held() == ["FS1", "FS2"]
    assert (driver.degraded, driver.without) == ([], [])
    assert driver.thaw() == []
    assert mbf.held() == []
    assert driver.marks == {}
    assert driver.thaw() == []
    assert len(mbf.calls("Unquiesce")) == 1


def test_mbf_runs_in_its_own_folder_with_the_password(mbf: Mbf, make: Callable[..., Any]) -> None:
    make().check(NOBODY)
    make(password_by="stdin").check(NOBODY)
    first, second = mbf.calls()
    assert f"P={PASSWORD}" in first["arguments"]
    assert first["stdin"] == ""
    assert not [word for word in second["arguments"] if word.startswith("P=")]
    assert second["stdin"] == PASSWORD + "\n"


@pytest.mark.parametrize("code", [*range(1, 13), 99])
def test_any_other_code_unquiesces(mbf: Mbf, make: Callable[..., Any], code: int) -> None:
    mbf.plan(quiesce={"code": code})
    driver = make(settle=0)
    with pytest.raises(DriverError, match=f"was not quiesced: MBF: exit code {code}, "):
        driver.freeze()
    assert mbf.held() == ["FS1", "FS2"]
    with contextlib.suppress(DriverError):  # to be done again, as MEDITECH's listener may be late
        driver.thaw()
    assert mbf.held() == []


@pytest.mark.parametrize(
    ("step", "text"),
    [
        ({"lines": ["FS1=SUCCESS,"]}, "no success of FS2"),
        slow({"lines": ["FS1=SUCCESS,", "FS2=SUC"], "end": ""}, "no success of FS2 (SUC)"),
        slow({"lines": ["~~~ \x01\x02 |||"]}, "no success of FS1, FS2"),
        slow({"lines": ["x" * (1 << 21)]}, "printed more than 1 MiB"),
        slow({"signal": int(signal.SIGSEGV)}, "ended by signal 11"),
        ({"sleep": 30}, "took longer than 2 s"),
        slow({"child": 30}, "took longer than 2 s"),
    ],
)
def test_an_unknown_outcome_counts_as_quiesced_and_is_unquiesced_twice(
    mbf: Mbf, make: Callable[..., Any], step: dict[str, Any], text: str
) -> None:
    mbf.plan(quiesce=step)
    driver = make(timeout=2, settle=2, seconds=2)
    driver._servers = ["FS1", "FS2"]
    with pytest.raises(DriverError, match=re.escape(text)):
        driver.freeze()
    with pytest.raises(DriverError, match="this is repeated for"):
        driver.thaw()
    assert mbf.held() == []
    with pytest.raises(DriverError, match="this is repeated for"):
        driver.thaw()
    assert len(mbf.calls("Unquiesce")) == 1
    wait_for(lambda: time.monotonic() > driver._not_before)
    driver.thaw()
    assert len(mbf.calls("Unquiesce")) == 2
    assert driver.marks == {}
    assert not subprocess.run(["pgrep", "-f", f"{mbf.folder}/mbf"], stdout=subprocess.PIPE, check=False).stdout


@pytest.mark.parametrize(
    ("seconds", "settle", "late"),
    [
        slow(2, 4, 3),  # after the driver has given it up
        (5, 0.5, 4),  # after that, and after `settle`, but within what MBF itself was told (T=)
    ],
)
def test_a_listener_that_quiesces_late_is_unquiesced_all_the_same(
    mbf: Mbf, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, seconds: int, settle: float, late: int
) -> None:
    monkeypatch.setattr(mbf_driver, "AGAIN_EVERY", 0.5)
    mbf.plan(quiesce={"late": late, "sleep": 30})
    driver = make(timeout=2, settle=settle, seconds=seconds)
    driver._servers = ["FS1", "FS2"]
    with pytest.raises(DriverError):
        driver.freeze()
    begun = driver.marks["quiesced"]
    stood = 0.0
    while driver.marks:
        stood = stood or (time.time() if len(mbf.held()) == 2 else 0.0)
        with contextlib.suppress(DriverError):
            driver.thaw()
        assert not stood or time.time() < stood + 2
        stood = stood if mbf.held() else 0.0
        time.sleep(0.05)
    assert mbf.held() == []
    assert time.time() > begun + max(seconds, 2) + settle


def test_an_answer_after_mbfs_own_time_is_none(
    mbf: Mbf, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mbf_settings, "LATE", 1.0)
    mbf.plan(quiesce={"sleep": 4})
    driver = make(timeout=20, seconds=1, settle=0)
    driver._servers = ["FS1", "FS2"]
    with pytest.raises(DriverError, match="took longer than 2 s"):
        driver.freeze()
    assert driver.marks["again"] > time.time() + 10
    mbf.plan(census={"sleep": 4})
    with pytest.raises(DriverError, match="took longer than 2 s"):
        driver.check(NOBODY)


def test_an_unquiesce_may_take_longer_than_a_quiesce(mbf: Mbf, make: Callable[..., Any]) -> None:
    mbf.plan(unquiesce={"sleep": 3})
    driver = make(timeout=2)
    driver._servers = ["FS1", "FS2"]
    driver.freeze()
    assert driver.thaw() == []
    assert len(mbf.calls("Unquiesce")) == 1


@pytest.mark.parametrize("code", [1, 11])
@pytest.mark.parametrize("line", [[], ["FS2=UNAVAILABLE,"]])
def test_a_server_that_died_does_not_keep_its_ring(
    mbf: Mbf, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, code: int, line: list[str]
) -> None:
    monkeypatch.setattr(mbf_driver, "PATIENCE", (0.1, 0.1))
    mbf.plan(unquiesce={"code": code, "lines": ["FS1=SUCCESS,", *line], "holds": ["FS1"]})
    driver = make()
    driver.freeze()
    assert driver.thaw() == []
    assert len(mbf.calls("Unquiesce")) == 3
    assert driver.marks == {}
    assert driver.without == ["FS2"]
    assert "no success of FS2 at the unquiesce" in driver.degraded[0]


def test_a_server_that_was_away_for_a_moment_is_asked_again(mbf: Mbf, make: Callable[..., Any]) -> None:
    mbf.plan(unquiesce=[{"code": 1, "lines": ["FS1=SUCCESS,"], "holds": ["FS1"]}, {}])
    driver = make()
    driver.freeze()
    assert driver.thaw() == []
    assert (mbf.held(), driver.without, driver.degraded) == ([], [], [])


def gave_up(driver: Any) -> bool:
    with contextlib.suppress(DriverError):
        driver.thaw()
    return not driver.marks


def test_a_ring_whose_servers_all_died_is_given_up_in_the_end(mbf: Mbf, make: Callable[..., Any]) -> None:
    mbf.plan(unquiesce={"code": 1, "lines": [], "holds": []})
    driver = make(settle=1)
    driver.freeze()
    with pytest.raises(DriverError, match="may still be quiesced"):
        driver.thaw()
    wait_for(lambda: gave_up(driver), 5)
    assert driver.without == ["FS1", "FS2"]


@pytest.mark.parametrize("code", [1, 10, 11])
def test_which_codes_let_a_ring_go_is_the_sites(mbf: Mbf, make: Callable[..., Any], code: int) -> None:
    mbf.plan(unquiesce={"code": code})
    driver = make(released=[0])
    driver.freeze()
    with pytest.raises(DriverError, match=f"may still be quiesced: MBF: exit code {code},"):
        driver.thaw()
    assert make(driver.marks).thaw() == []


@pytest.mark.parametrize("answer", [["FS1=SUCCESS,"], ["FS1=SUCCESS,", "FS2=SUCCESS,"]])
def test_what_the_site_accepts_is_called_degraded(mbf: Mbf, make: Callable[..., Any], answer: list[str]) -> None:
    mbf.plan(quiesce={"code": 11, "lines": ["FS1=SUCCESS,"], "holds": ["FS1"]}, unquiesce={"lines": answer})
    driver = make(proceed=[0, 1, 10, 11])
    driver.freeze()
    assert driver.without == ["FS2"]
    assert driver.degraded[0].startswith("MBF: exit code 11, some servers are unavailable")
    assert driver.thaw() == []


def test_an_unquiesce_that_fails_is_tried_again_with_patience(mbf: Mbf, make: Callable[..., Any]) -> None:
    mbf.plan(unquiesce=[{"code": 5, "holds": []}, {"lines": ["FS1=SUCCESS,"], "holds": ["FS1"]}, {}])
    driver = make()
    driver.freeze()
    for held in (["FS1", "FS2"], ["FS2"]):
        with pytest.raises(DriverError, match="may still be quiesced"):
            driver.thaw()
        assert mbf.held() == held
        with pytest.raises(DriverError, match="may still be quiesced"):
            driver.thaw()  # too early: MBF is not even asked
        driver._not_before = 0.0
    assert len(mbf.calls("Unquiesce")) == 2
    assert driver._backoff == 1.0
    assert driver.thaw() == []
    assert mbf.held() == []


def test_a_hold_longer_than_mbf_may_keep_it_is_broken(mbf: Mbf, make: Callable[..., Any]) -> None:
    driver = make(seconds=1)
    driver.freeze()
    time.sleep(1.1)
    assert "may have unquiesced it on its own after T=" in driver.thaw()[0]


def test_a_census_that_cannot_be_had_is_no_good_preflight(mbf: Mbf, make: Callable[..., Any]) -> None:
    for step, text in [
        ({"code": 4}, "exit code 4, authentication failed"),
        ({"lines": []}, "has no drive"),
        ({"lines": ["FS1:FS1 E=zz|,"]}, "cannot be parsed"),
        ({"sleep": 20}, "took longer"),
    ]:
        mbf.plan(census=step)
        with pytest.raises(DriverError, match=text):
            make(timeout=3).check(NOBODY)
    with pytest.raises(DriverError, match="no program at /nowhere/mbf"):
        make(executable="/nowhere/mbf").check(NOBODY)


# In a holder


def test_a_holder_quiesces_and_its_answer_tells_of_degradation(mbf: Mbf, holds: Holds) -> None:
    mbf.plan(quiesce={"code": 10})
    holds.arm(descriptions=[mbf.description(proceed=[0, 10])])
    answer = holds.ask("freeze")
    assert (answer["ok"], answer["hold_unbroken"]) == (True, True)
    assert answer["degraded"][0].startswith("MBF: exit code 10")
    answer = holds.ask("thaw")
    assert (answer["ok"], answer["hold_unbroken"], answer["without"]) == (True, True, [])
    assert mbf.held() == []


def test_a_holder_that_is_killed_is_unquiesced_by_its_partner(mbf: Mbf, holds: Holds) -> None:
    armed = holds.arm(descriptions=[mbf.description(timeout=3, settle=0.5)])
    assert holds.ask("freeze")["ok"]
    os.kill(armed["pid"], signal.SIGKILL)
    wait_for(lambda: not mbf.held(), 5)
    wait_for(lambda: holds.ask("status")["state"] == "thawed", 8)


@pytest.mark.slow
def test_a_holder_killed_while_mbf_works_leaves_no_mbf(mbf: Mbf, holds: Holds) -> None:
    seconds = f"30.{os.getpid()}"
    mbf.plan(quiesce={"child": seconds})
    armed = holds.arm(descriptions=[mbf.description(timeout=3, settle=0.5)])
    record = records.read(holds.run_dir, "r1")
    assert record is not None
    with pytest.raises(manage.HolderError):
        protocol.call(records.socket_path(holds.run_dir, "r1"), "r1", "freeze", 1.5)
    assert mbf.held() == ["FS1", "FS2"]
    os.kill(armed["pid"], signal.SIGKILL)
    wait_for(lambda: not mbf.held(), 5)
    wait_for(lambda: holds.ask("status")["state"] == "thawed", 8)
    assert len(mbf.calls("Unquiesce")) == 2
    assert not subprocess.run(["pgrep", "-f", f"^sleep {seconds}$"], stdout=subprocess.PIPE, check=False).stdout


def test_the_ttl_of_a_hold_ends_in_an_unquiesce(mbf: Mbf, holds: Holds) -> None:
    holds.arm(descriptions=[mbf.description()], hold_ttl=3)
    assert holds.ask("freeze")["ok"]
    wait_for(lambda: not mbf.held(), 5)
    assert holds.ask("thaw")["hold_unbroken"] is False


def test_the_end_of_a_hold_waits_until_the_ring_is_unquiesced(mbf: Mbf, holds: Holds) -> None:
    mbf.plan(unquiesce=[{"code": 5, "holds": []}, {"code": 5, "holds": []}, {}])
    holds.arm(descriptions=[mbf.description()])
    assert holds.ask("freeze")["ok"]
    answer = holds.ask("thaw")
    assert (answer["ok"], answer["state"]) == (False, "thawing")
    assert "may still be quiesced" in answer["error"]
    assert manage.end(holds.run_dir, holds.find(), 20)["ok"]
    assert mbf.held() == []
    assert manage.find_all(holds.run_dir) == []


def test_the_record_of_a_hold_has_no_password(mbf: Mbf, holds: Holds) -> None:
    holds.arm(descriptions=[mbf.description()])
    holds.ask("freeze")
    assert PASSWORD not in Path(records.record_path(holds.run_dir, "r1")).read_text()
    holds.ask("thaw")


# The module

Play = Callable[..., list[dict[str, Any]]]
HOST = {"here": {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}}


@pytest.mark.slow
def test_the_module(mbf: Mbf, play: Play) -> None:
    def run(command: str, **more: Any) -> dict[str, Any]:
        return {"openisb.backup.mbf": {"command": command, **mbf.options(**more)}}

    census, planned, quiesced, unquiesced = play(
        [run("census"), {**run("quiesce"), "check_mode": True}, run("quiesce"), run("unquiesce")], hosts=HOST
    )
    assert census["changed"] is False
    assert [drive["server"] for drive in census["drives"]] == ["FS1", "FS2"]
    assert answers.parse_census(census["output"]).servers == ["FS1", "FS2"]
    assert planned["changed"] is True
    assert quiesced["servers"] == {"FS1": "SUCCESS", "FS2": "SUCCESS"}
    assert unquiesced["changed"] is True
    assert len(mbf.calls("Quiesce")) == 1
    mbf.plan(quiesce={"code": 9}, unquiesce=[{"code": 5}, {}])
    (failed,) = play([run("quiesce", timeout=20)], hosts=HOST)
    assert "exit code 9" in failed["msg"]
    assert failed["unquiesced"] is True
    assert mbf.held() == []
    mbf.plan(quiesce={"code": 7}, unquiesce=[{}, {"code": 1, "lines": ["FS1=SUCCESS,"]}, {"code": 9}])
    late, released = play([{**run("quiesce"), "ignore_errors": True}, run("unquiesce")], hosts=HOST)
    assert "may still quiesce: unquiesce once more" in late["msg"]
    assert (released["without"], released["servers"]) == (["FS2"], {"FS1": "SUCCESS"})


def test_the_module_unquiesces_without_a_census(mbf: Mbf, play: Play) -> None:
    mbf.plan(census={"code": 5}, unquiesce=[{"code": 1}, {"code": 9}])
    mbf.folder.joinpath("held-FS1").touch()
    task = {"openisb.backup.mbf": {"command": "unquiesce", **mbf.options()}}
    done, failed = play([task, {**task, "ignore_errors": True}], hosts=HOST)
    assert done["changed"] is True
    assert "It is not known which servers must answer" in done["warnings"][-1]
    assert "may still be quiesced" in failed["msg"]
    assert mbf.held() == []


@pytest.mark.slow
def test_nothing_that_ansible_shows_or_logs_has_the_password(mbf: Mbf, tmp_path: Path) -> None:
    echo = {"code": 4, "lines": [f"no such user backup/{PASSWORD}"]}
    mbf.plan(quiesce=echo, unquiesce=echo)
    log = tmp_path / "ansible.log"
    by_value = mbf.options(password="{{ secret }}")
    del by_value["password_file"]
    tasks = [
        {"openisb.backup.mbf": {"command": "census", **by_value}},
        {"openisb.backup.mbf": {"command": "quiesce", "timeout": 1, **mbf.options()}, "ignore_errors": True},
        {"openisb.backup.quiesce_info": {"run_dir": str(tmp_path), "drivers": [mbf.description()]}},
        {
            "openisb.backup.quiesce": {"run_id": "r1", "run_dir": str(tmp_path), "drivers": [mbf.description()]},
        },
        {"openisb.backup.quiesce": {"run_id": "r1", "run_dir": str(tmp_path), "state": "absent"}},
    ]
    variables = tmp_path / "secret.json"
    variables.write_text(json.dumps({"secret": PASSWORD}))
    playbook = tmp_path / "play.json"
    playbook.write_text(json.dumps([{"hosts": "here", "gather_facts": False, "tasks": tasks}]))
    inventory = tmp_path / "hosts.json"
    inventory.write_text(json.dumps({"all": {"hosts": HOST}}))
    done = subprocess.run(
        ["ansible-playbook", "-vvvv", "-i", str(inventory), "-e", f"@{variables}", str(playbook)],
        env={**os.environ, "ANSIBLE_LOG_PATH": str(log), "ANSIBLE_STDOUT_CALLBACK": "default"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    shown = done.stdout + done.stderr + log.read_text()
    assert done.returncode == 0, shown
    assert "exit code 4, authentication failed" in shown
    assert PASSWORD not in shown
