# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A job is followed to its end in one task, in lines that any callback shows, and its own result comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.openisb.backup.plugins.module_utils.control.text import progress_line
from ansible_collections.openisb.backup.plugins.module_utils.host import jobs as host_jobs
from ansible_collections.openisb.backup.plugins.plugin_utils import jobs

ROOT = Path(__file__).parents[3]
TASKS = sorted([*(ROOT / "playbooks").glob("*.yml"), *(ROOT / "roles").glob("*/tasks/**/*.yml")])
ARGS = {"job": "j", "label": "fs1/m", "run_dir": "/run/x", "poll": 1.0, "timeout": 60, "grace": 1.0}
AT_WORK = {"finished": False, "progress": {"label": "j", "percent": 50.0, "rate": 2**20, "eta_s": 3.0}}
ENDED = {"finished": True, "progress": {"label": "j"}}

#: A module that reports as those of the collection do, and ends as it is asked to.
JOB = """
import os, time
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import ARGUMENTS, FINISHED, Job
spec = dict(ARGUMENTS, end=dict(default=""), pace=dict(type="float", default=0.1))
module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
end = module.params["end"]
job = Job(module.params["run_dir"], module.params["job"])
for number in range(0 if module.check_mode else 30):
    job.tell_progress(number * 10**6, 30 * 10**6, number * 0.1 + 0.1)
    time.sleep(module.params["pace"])
if end == "killed":
    os.killpg(0, 9)  # and Ansible's wrapper with it
job.tell(FINISHED, {"percent": 100.0, "rate": 10**6, "eta_s": 0})
if end:
    module.fail_json(msg=end)
module.exit_json(changed=True, outcome="all is well")
"""
ACTION = "from ansible_collections.openisb.backup.plugins.plugin_utils.jobs import ActionModule"


class Followed(jobs.ActionModule):
    """The action, with a host that answers as it is told."""

    def __init__(self, *answers: Any) -> None:
        self.answers, self.lines, self.warnings, self.resets = list(answers), [], [], 0
        self._display = SimpleNamespace(
            display=lambda line, color: self.lines.append(line), warning=self.warnings.append
        )
        self._connection = SimpleNamespace(reset=self._reset)
        self._task = SimpleNamespace(timeout=0)

    def _reset(self) -> None:
        self.resets += 1

    def _look(self, *dummy: Any) -> dict[str, Any]:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def follow(self, **more: Any) -> None:
        self._follow({**ARGS, "patience": 300.0, **more}, {})


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Time passes by waiting alone."""
    now = SimpleNamespace(monotonic=lambda: now.at, sleep=lambda seconds: setattr(now, "at", now.at + seconds), at=0.0)
    monkeypatch.setattr(jobs, "time", now)
    return now


def lost() -> AnsibleConnectionFailure:
    return AnsibleConnectionFailure("connection refused")


@pytest.mark.usefixtures("clock")
def test_each_look_is_a_line_where_it_tells_something_new() -> None:
    later = {"finished": False, "progress": {"percent": 75.0, "rate": 2**20, "eta_s": None}}
    action = Followed({"finished": False, "progress": {}}, AT_WORK, AT_WORK, later, ENDED)
    action.follow()
    assert [line.split() for line in action.lines] == [
        ["fs1/m", "waiting"],
        ["fs1/m", "50.0", "%", "1.0", "MiB/s", "3", "s", "left"],
        ["fs1/m", "75.0", "%", "1.0", "MiB/s"],
    ]


@pytest.mark.usefixtures("clock")
def test_a_host_that_is_not_reached_is_asked_again() -> None:
    action = Followed(AT_WORK, lost(), lost(), AT_WORK, lost(), ENDED)
    action.follow()
    assert action.answers == []
    assert len(action.warnings) == action.resets == 3
    assert "fs1/m: its host does not answer; retrying (connection refused)" in action.warnings


def test_a_host_that_stays_away_is_asked_for_a_bounded_time(clock: SimpleNamespace) -> None:
    action = Followed(AT_WORK, *[lost() for _number in range(100)])
    with pytest.raises(jobs.NotFollowed, match="its host has not answered for 30 s: connection refused"):
        action.follow(patience=30.0)
    assert 30.0 <= clock.at <= 30.0 + jobs.AGAIN


def run_after(action: Followed, monkeypatch: pytest.MonkeyPatch, **started: Any) -> dict[str, Any]:
    """What the task ends with, of a job that was started."""
    action._task.async_val, action._task.check_mode = 0, False
    given = {**ARGS, "patience": 30.0}
    monkeypatch.setattr(action, "_arguments", lambda: given, raising=False)
    monkeypatch.setattr(action, "_detach", lambda *dummy: {"ansible_job_id": "1.2", **started}, raising=False)
    monkeypatch.setattr(action, "_remove", lambda *dummy: None, raising=False)
    return action.run(None, {})


@pytest.mark.usefixtures("clock")
def test_a_host_that_is_gone_is_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then another host may do the work; after any other failure it may not."""
    result = run_after(Followed(*[lost() for _number in range(100)]), monkeypatch)
    assert (result["failed"], result["host_gone"]) == (True, True)
    assert result["msg"].startswith("fs1/m: its host has not answered for 30 s")
    result = run_after(Followed({"finished": False, "progress": {"percent": "x"}}), monkeypatch)
    assert result["failed"] and "host_gone" not in result


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(("said", "gone"), [("could not find job", True), ("no space left", False)])
def test_a_host_that_was_restarted_knows_nothing_of_the_job(
    monkeypatch: pytest.MonkeyPatch, said: str, gone: bool
) -> None:
    action = Followed(ENDED)
    monkeypatch.setattr(action, "_async_status", lambda *dummy: {"failed": True, "msg": said}, raising=False)
    result = run_after(action, monkeypatch)
    assert result["failed"] and result.get("host_gone", False) is gone
    assert ("lost everything of it, as after a restart" in result["msg"]) is gone


def test_a_connection_that_hangs_counts_as_one_that_is_lost() -> None:
    with pytest.raises(AnsibleConnectionFailure, match="no answer within 0.05 s"), jobs.within(0.05):
        time.sleep(5)
    time.sleep(0.1)  # and no alarm comes after


def test_a_job_that_is_at_work_for_too_long_is_not_followed_for_ever(clock: SimpleNamespace) -> None:
    def later() -> dict[str, Any]:
        clock.at += 20.0
        return AT_WORK

    action = Followed()
    action._look = lambda *dummy: later()
    with pytest.raises(jobs.NotFollowed, match="still running after 60 s"):
        action.follow()


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize("progress", [None, [], "", {"percent": "\x1b[2J", "rate": 1}, {"percent": 1.0}])
def test_what_a_host_tells_may_be_anything(progress: Any) -> None:
    action = Followed({"finished": False, "progress": progress}, ENDED)
    with pytest.raises(jobs.NotFollowed) as caught:
        action.follow()
    assert "\x1b" not in str(caught.value)


@pytest.mark.usefixtures("clock")
def test_a_look_that_fails_says_why() -> None:
    action = Followed()
    action._execute_module = lambda **dummy: {"failed": True, "msg": "no space"}
    with pytest.raises(jobs.NotFollowed, match="its progress is not known: no space"):
        action._poll("/run/x", 1.0, {}, {})


def test_a_job_that_has_reported_nothing_may_still_begin(clock: SimpleNamespace) -> None:
    def later() -> None:
        clock.at += 0.4

    action = Followed(AT_WORK, ENDED)
    answers = [None, None]
    follow = action._look
    action._look = lambda *dummy: later() or answers.pop() if answers else follow()
    action.follow()
    assert [line.split()[1] for line in action.lines] == ["waiting", "50.0"]


def test_a_job_that_never_reports_is_left_to_its_result(clock: SimpleNamespace) -> None:
    def later() -> None:
        clock.at += 0.4

    action = Followed()
    action._look = lambda *dummy: later()
    action.follow()  # for a second, which is its grace
    assert 1.0 < clock.at < 2.0


def test_looks_become_rarer_but_never_far_between() -> None:
    assert [jobs.next_wait(elapsed, 1.0) for elapsed in (0, 30, 300, 86400)] == [1.0, 1.0, 10.0, 30.0]


def test_a_job_that_waits_for_a_slot_has_no_numbers() -> None:
    assert progress_line({"label": "fs1/m"}).split() == ["fs1/m", "waiting"]


PARTS = [
    {"label": "m", "state": "running", "percent": 60.4, "bytes_done": 1, "bytes_total": 2, "rate": 1, "eta_s": 1},
    {"label": "data", "state": "running", "percent": 12, "bytes_done": 1, "bytes_total": 2, "rate": 1, "eta_s": 1},
]
WHOLE = {"label": "fs1", "percent": 43.2, "bytes_total": 12 * 2**30, "rate": 210 * 2**20, "eta_s": 80.0}


def test_a_job_with_parts_is_one_line() -> None:
    line = progress_line({**WHOLE, "parts": PARTS})
    assert line.strip() == "fs1: 43 % of 12.0 GiB, 210.0 MiB/s, 1 min 20 s left (m 60 %, data 12 %)"
    states = [{**PARTS[0], "state": state} for state in ("waiting", "finished", "failed")]
    assert progress_line({**WHOLE, "rate": 0, "eta_s": None, "parts": states}).strip() == (
        "fs1: 43 % of 12.0 GiB (m waiting, m done, m failed)"
    )
    for parts in ([], PARTS[:1]):
        assert progress_line({**WHOLE, "parts": parts}) == progress_line(WHOLE)


def test_what_a_host_says_of_parts_is_bounded_and_plain() -> None:
    part = {**PARTS[0], "label": "\x1b[2J\n" + "x" * 10**6, "percent": 1e300, "state": "\u202e" * 10**6}
    line = progress_line({**WHOLE, "percent": -5, "bytes_total": 10**300, "parts": [part] * 10**4})
    assert len(line) <= 400 and line.isprintable() and "\x1b" not in line
    assert "100 %" in progress_line({**WHOLE, "parts": [{**part, "label": "m"}, PARTS[1]]})


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "parts",
    [
        7,
        {"a": 1, "b": 2},
        "many",
        [1, 2],
        [{}, {}],
        [{**PARTS[0], "percent": "\x1b[2J"}, PARTS[1]],
        [{**PARTS[0], "percent": 10**400}, PARTS[1]],
        [{**PARTS[0], "percent": None}, PARTS[1]],
    ],
)
def test_parts_may_be_anything(parts: Any) -> None:
    with pytest.raises(jobs.NotFollowed) as caught:
        Followed({"finished": False, "progress": {**WHOLE, "parts": parts}}, ENDED).follow()
    assert "\x1b" not in str(caught.value)


def test_a_job_records_a_bounded_number_of_parts(tmp_path: Path) -> None:
    job = host_jobs.Job(str(tmp_path), "j")
    job.tell_progress(1, 2, 1.0, [{"label": str(number)} for number in range(1000)])
    assert [part["label"] for part in job.read()["progress"]["parts"]] == [str(n) for n in range(host_jobs.PARTS_MAX)]


def play(
    tmp_path: Path, end: str, *options: str, callback: str = "default", pace: float = 0.1, **keywords: Any
) -> tuple[int, str]:
    """Run a module as a job, with a callback of Ansible's own; status and output. ``keywords``: of its task."""
    for folder, text in (("library", JOB), ("action_plugins", ACTION)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "task_of_test.py").write_text(text)
    arguments = {"job": "j", "label": "fs1/m", "run_dir": str(tmp_path / "run"), "timeout": 60, "end": end}
    tasks = [
        {"task_of_test": {**arguments, "pace": pace}, "register": "ended", **keywords},
        {"ansible.builtin.debug": {"msg": "it said: {{ ended.outcome }}"}},
    ]
    variables = {"ansible_python_interpreter": sys.executable}
    (tmp_path / "play.json").write_text(
        json.dumps([{"hosts": "localhost", "gather_facts": False, "vars": variables, "tasks": tasks}])
    )
    (tmp_path / "ansible.cfg").touch()
    done = subprocess.run(
        [Path(sys.executable).parent / "ansible-playbook", tmp_path / "play.json", *options],
        env={
            **os.environ,
            "ANSIBLE_CONFIG": str(tmp_path / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"),
            "ANSIBLE_STDOUT_CALLBACK": callback,
            "ANSIBLE_HOME": str(tmp_path / "home"),
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("callback", ["default", "minimal"])
def test_with_ansibles_own_callbacks_following_is_no_failed_retry(tmp_path: Path, callback: str) -> None:
    # The task's own timeout is for each look, and not for the whole job, which takes longer.
    status, output = play(tmp_path, "", callback=callback, pace=0.6, timeout=15)
    assert status == 0, output
    assert "it said: all is well" in output
    assert "RETRY" not in output and "errantly" not in output
    lines = [line for line in output.splitlines() if line.startswith("  fs1/m ") and "%" in line]
    assert lines, output
    assert os.listdir(tmp_path / "run/async") == []


@pytest.mark.slow
def test_a_job_that_fails_fails_the_task_with_its_own_result(tmp_path: Path) -> None:
    status, output = play(tmp_path, "no room is left")
    assert status != 0
    assert "no room is left" in output
    assert os.listdir(tmp_path / "run/async") == []


@pytest.mark.slow
def test_a_job_that_is_killed_is_told_so(tmp_path: Path) -> None:
    status, output = play(tmp_path, "killed")
    assert status != 0
    assert "fs1/m: it has ended without a result, so it was killed" in output
    assert os.listdir(tmp_path / "run/async") == []


@pytest.mark.slow
def test_in_check_mode_it_is_no_job(tmp_path: Path) -> None:
    status, output = play(tmp_path, "", "--check")
    assert status == 0 and "it said: all is well" in output, output
    assert "fs1/m" not in output
    assert not (tmp_path / "run/async").exists()


@pytest.mark.slow
def test_it_is_no_job_of_ansibles_own_as_well(tmp_path: Path) -> None:
    status, output = play(tmp_path, "", **{"async": 60, "poll": 0})
    assert status != 0
    assert "runs as a job by itself: remove 'async' from the task" in output


@pytest.mark.slow
def test_a_host_that_starts_no_job_is_told_so_and_is_no_unreachable_host(tmp_path: Path) -> None:
    """An unreachable host would be left out of the play, and nothing would be cleaned up for it."""
    status, output = play(tmp_path, "", vars={"ansible_remote_tmp": "/proc/nowhere"})
    assert status != 0
    assert "fs1/m did not start: its host does not answer, or its login user cannot write there" in output, output
    assert "ansible_remote_tmp is '/proc/nowhere'" in output
    assert "unreachable=0" in output.replace(" ", "") and "failed=1" in output.replace(" ", "")
    assert '"host_gone": true' in output


def test_no_task_follows_a_job_in_another_way() -> None:
    def tasks(value: Any) -> list[dict[str, Any]]:
        if isinstance(value, list):
            return [task for item in value for task in tasks(item)]
        return [value, *(task for item in value.values() for task in tasks(item))] if isinstance(value, dict) else []

    for path in TASKS:
        for task in tasks(yaml.safe_load(path.read_text())):
            assert "until" not in task and "openisb.backup.job_info" not in task, path
            assert "ansible.builtin.async_status" not in task, path
            assert "async" not in task, path
