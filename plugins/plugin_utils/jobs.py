# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The action of every module that runs as a job: starts it detached, follows it to its end and returns its result.

The job goes on without the connection, and the whole of it is one task. With `async` and `until`, Ansible's own
callbacks would show each poll as a failed attempt, and the first poll that does not reach the host would end the task
while the job goes on.
"""

from __future__ import annotations

import contextlib
import posixpath
import signal
import time
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible_collections.openisb.backup.plugins.module_utils.control.text import progress_line
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import ARGUMENTS
from ansible_collections.openisb.backup.plugins.module_utils.host.plain import plain

from . import confidential
from .polls import Polls

RARER = 30
"""The next poll comes after the elapsed time divided by this: a job of an hour needs no poll every second ..."""

LONGEST = 30.0
"""... but never later than after this many seconds."""

LOOK = 60
"""Seconds for one poll, not counting its wait for the job, after which the host counts as unreachable."""

AGAIN = 5.0
"""Seconds from a poll that did not reach the host to the next one."""

WRITTEN = 10.0
"""Seconds within which a job that has ended must have written its result."""


LOST = "could not find job"
"""What Ansible says of a job whose host no longer has anything of it."""


class NotFollowed(Exception):
    """The job's own result is not known; the text says why."""


class HostGone(NotFollowed):
    """The job's host has died, or cannot be reached any more: only another host can do the work."""


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Give up after this many seconds, as if the host were unreachable: a connection may also hang forever.

    It replaces the alarm of the task's own `timeout`, which would end this task during a long job.
    """

    def late(_signal: int, _frame: types.FrameType | None) -> None:
        raise AnsibleConnectionFailure(f"no answer within {seconds:g} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def next_wait(elapsed: float, poll: float) -> float:
    """For how many seconds the next poll waits for the job's end, ``elapsed`` seconds after the first one."""
    return max(poll, min(elapsed / RARER, LONGEST))


class ActionModule(confidential.ActionModule):
    """Runs the module that the task names. In check mode it only reads, and is no job."""

    _shown = ""
    _polls: Polls | None = None

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        if self._task.async_val:
            raise AnsibleActionFail(f"{self._task.action} runs as a job by itself: remove 'async' from the task")
        if self._task.check_mode:
            return super().run(tmp, task_vars)
        args, variables = self._arguments(), task_vars or {}
        started = self._detach(args, variables)
        if "ansible_job_id" not in started:
            return started
        left = [posixpath.join("async", posixpath.basename(started["ansible_job_id"]))]
        try:
            self._follow(args, variables)
            result = self._take(args, started["ansible_job_id"], variables)
            left.append(posixpath.join("jobs", f"{args['job']}.json"))
        except NotFollowed as error:
            gone = {"host_gone": True} if isinstance(error, HostGone) else {}
            return {"failed": True, "msg": f"{args['label']}: {error}", **gone}
        finally:
            self._remove(args["run_dir"], left)
        return result

    def _arguments(self) -> dict[str, Any]:
        """How to follow the job. The module validates the rest."""
        given = {name: value for name, value in self._task.args.items() if name in ARGUMENTS}
        checked = ArgumentSpecValidator(ARGUMENTS).validate(given)
        if checked.error_messages:
            raise AnsibleActionFail("; ".join(checked.error_messages))
        found: dict[str, Any] = checked.validated_parameters
        return dict(found, label=found["label"] or found["job"])

    def _detach(self, args: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Start the module as the keyword `async` would, and return what that returns."""
        self._connection._shell.set_option("async_dir", f"{args['run_dir']}/async")
        self._task.async_val = args["timeout"]
        try:
            return super().run(None, variables)
        except AnsibleConnectionFailure as error:  # Ansible's word also for a login that can write nowhere
            raise AnsibleActionFail(
                f"{args['label']} did not start: its host does not answer, or its login user cannot write there: "
                f"{error} (ansible_user is '{self._play_context.remote_user or ''}', and ansible_remote_tmp is "
                f"'{self.get_shell_option('remote_tmp', '~/.ansible/tmp')}')",
                result={"host_gone": True},
            ) from error
        finally:
            self._task.async_val = 0

    def _follow(self, args: Mapping[str, Any], variables: dict[str, Any]) -> None:
        """Poll until the job has ended, and show its progress."""
        begun = time.monotonic()
        while True:
            elapsed = time.monotonic() - begun
            wait = next_wait(elapsed, args["poll"])
            found = self._reach(args, lambda wait=wait: self._look(args, wait, variables), wait)
            if found is None and elapsed > args["grace"]:
                return  # it has failed before it could report anything, and its own result says why
            if found and found["finished"]:  # there is no progress to show any more
                return
            self._show(args, found["progress"] if found else {})
            if elapsed > args["timeout"]:
                raise NotFollowed(f"it is still running after {args['timeout']} s, and is no longer followed")

    def _look(self, args: Mapping[str, Any], wait: float, variables: dict[str, Any]) -> Any:
        """What the job reports; None if it has not reported anything yet."""
        if self._polls is None:
            host = self._task.delegate_to or variables["inventory_hostname"]
            self._polls = Polls(C.DEFAULT_LOCAL_TMP, f"{host} {args['run_dir']}")
        return self._polls.look(lambda known: self._poll(args["run_dir"], wait, known, variables)).get(args["job"])

    def _poll(self, run_dir: str, wait: float, known: Mapping[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """What all jobs of the host report, as soon as one of them differs from what is ``known``."""
        options = {"run_dir": run_dir, "wait": wait, "ended": [name for name, job in known.items() if job["finished"]]}
        found = self._execute_module(module_name="openisb.backup.job_info", module_args=options, task_vars=variables)
        if found.get("failed"):
            raise NotFollowed(f"its progress is not known: {found.get('msg', 'no reason given')}")
        return dict(found["jobs"])

    def _show(self, args: Mapping[str, Any], progress: Any) -> None:
        """Show progress with every callback, because it is no result of a task. The host may report anything."""
        try:
            line = progress_line({**progress, "label": args["label"]})
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise NotFollowed(f"its progress is not known: its host answers {plain(str(progress))[:200]}") from error
        if line != self._shown:
            self._display.display(line, color=C.COLOR_CHANGED)
            self._shown = line

    def _take(self, args: Mapping[str, Any], jid: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The job's own result, which is written a moment after its last report."""
        end = time.monotonic() + WRITTEN
        while True:
            taken = self._reach(args, lambda: self._async_status(jid, variables), 0.0)
            if taken.get("failed") and taken.get("msg") == LOST:
                raise HostGone("its host has lost everything of it, as after a restart")
            if taken.get("finished") or taken.get("failed"):
                return taken
            if time.monotonic() > end:
                raise NotFollowed(
                    "it has ended without a result, so it was killed: look at its host's log, and start it again"
                )
            time.sleep(0.5)

    def _remove(self, run_dir: str, names: Sequence[str]) -> None:
        """Remove files of the job from its host, by a command alone: it takes a tenth of a module's time."""
        shell = self._connection._shell
        command = "; ".join(shell.remove(posixpath.join(run_dir, name)) for name in names)
        with contextlib.suppress(AnsibleConnectionFailure), within(LOOK):
            self._low_level_execute_command(command)

    def _async_status(self, jid: str, variables: dict[str, Any]) -> dict[str, Any]:
        """What Ansible's own action returns about the job."""
        task = self._task.copy()
        task.args = {"jid": jid, "mode": "status"}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.async_status",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        return dict(action.run(task_vars=variables))

    def _reach(self, args: Mapping[str, Any], ask: Callable[[], dict[str, Any]], takes: float) -> dict[str, Any]:
        """The host's answer, retried for ``patience`` seconds while it is unreachable: the job goes on."""
        lost = None
        while True:
            lost = time.monotonic() if lost is None else lost
            try:
                with within(takes + min(LOOK, self._task.timeout or LOOK)):
                    return ask()
            except AnsibleConnectionFailure as error:
                if time.monotonic() - lost >= args["patience"]:
                    raise HostGone(f"its host has not answered for {args['patience']:g} s: {error}") from error
                self._display.warning(f"{args['label']}: its host does not answer; retrying ({error})")
                self._reconnect()
                time.sleep(AGAIN)

    def _reconnect(self) -> None:
        """Reset the connection: a broken one does not recover."""
        with contextlib.suppress(AttributeError, AnsibleConnectionFailure), within(LOOK):
            self._connection.reset()
