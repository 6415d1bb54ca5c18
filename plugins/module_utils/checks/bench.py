# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tools of a check: a deadline, its own directory, and commands that have a time limit and are recorded."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from typing import Any, BinaryIO, Callable, Iterator, NamedTuple, cast

from ..host.clock import Deadline
from ..host.commands import quoted
from ..host.processes import descendants, identity
from .ending import send
from .errors import CheckFailed
from .isolation import User, confinement
from .record import Output, Record

POLL = 0.05
GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL for a command that timed out."""
GIVE_UP = 7.0
"""Seconds after which an unkillable command is left behind: it waits for a disk."""
CLEAN_UP = 15.0
"""Seconds that a check may take to clean up, in addition to its time limit."""
READ_SIZE = 65536
JUDGED = 32768
"""Characters of a command's output, from its start and from its end, by which a check judges it."""


class Finished(NamedTuple):
    """The result of a command: exit status (negative: the signal), and its output and errors as one text."""

    rc: int
    output: str


class Bench:
    """``work``: a directory that is removed after the check. ``report`` is called after each change of the record."""

    def __init__(self, record: Record, work: str, seconds: float, mark: str, report: Callable[[], None]) -> None:
        self.record = record
        self.work = work
        self.own_mounts = False
        """Whether mounts are visible only to this check, and end with it."""
        self.disposable = False
        """Whether the mounts are discarded with the drill, so that owners and links in them may be changed."""
        self.confined = False
        """Whether programs drop all privileges before they start."""
        self.user: User | None = None
        """The user they then run as; None: as this process, which is an unprivileged user's."""
        self._mark = mark
        self._report = report
        self._seconds = seconds
        self._deadline = Deadline(seconds)

    def left(self) -> float:
        """Seconds left for the check. Raises CheckFailed if none are left."""
        left = self._deadline.left()
        if not left:
            raise CheckFailed(f"it took longer than its {self._seconds:g} s: see what it did, or increase 'timeout'")
        return left

    @contextlib.contextmanager
    def cleaning_up(self) -> Iterator[None]:
        """Give commands their own time limit, even if the check has no time left. A failure ends the block early."""
        before, self._deadline = self._deadline, Deadline(CLEAN_UP)
        try:
            with contextlib.suppress(CheckFailed):
                yield
        finally:
            self._deadline = before

    def folder(self, name: str) -> str:
        """A new directory in ``work``, owned by the user that programs run as."""
        path = os.path.join(self.work, name)
        os.mkdir(path, 0o700)
        if self.user is not None:
            os.chown(path, *self.user)
        return path

    def need(self, program: str, package: str) -> str:
        """A program's path. Raises CheckFailed if it is not installed."""
        found = shutil.which(program, path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        if found is None:
            raise CheckFailed(f"{program} is not installed on this host: install it (Debian: package {package})")
        return found

    def call(
        self,
        argv: list[str],
        environment: dict[str, str],
        text: str | None = None,
        folder: str = "/",
        with_rights: bool = False,
    ) -> Finished:
        """Run a command with only ``environment``, and ``text`` as its input, and wait for its end.

        ``with_rights``: it keeps the privileges of this process, as needed to mount and copy.
        Raises CheckFailed if it cannot be started or does not end in time; then it is ended with all that it started.
        """
        self.left()
        entry = self.record.begin(argv, quoted(argv))
        self._report()
        begun = time.monotonic()
        process = self._start(argv, environment, text, folder, with_rights)
        heard = _Heard(self.record.output)
        try:
            in_time = self._listen(process, heard)
        finally:
            entry.update(rc=process.poll(), seconds=round(time.monotonic() - begun, 3))
            heard.add(b"", final=True)
            cast(BinaryIO, process.stdout).close()
            self._report()
        if not in_time:
            why = "was ended" if process.returncode is not None else "cannot be ended because it waits for a disk"
            raise CheckFailed(
                f"'{quoted(argv)}' {why}: the check took longer than its {self._seconds:g} s: "
                "see what it did, or increase 'timeout'"
            )
        return Finished(process.returncode, heard.text())

    def serve(self, argv: list[str], environment: dict[str, str], log: str, folder: str) -> subprocess.Popen[bytes]:
        """Start a server with its output in a file. The caller must end it. Raises CheckFailed."""
        self.left()
        self.record.begin(argv, f"{quoted(argv)} &")
        self._report()
        descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            return self._popen(argv, environment, subprocess.DEVNULL, descriptor, folder, False)
        finally:
            os.close(descriptor)

    def _start(
        self, argv: list[str], environment: dict[str, str], text: str | None, folder: str, with_rights: bool
    ) -> subprocess.Popen[bytes]:
        if text is None:
            return self._popen(argv, environment, subprocess.DEVNULL, subprocess.PIPE, folder, with_rights)
        with tempfile.TemporaryFile(dir=self.work) as stream:  # a pipe could block if unread
            stream.write(text.encode())
            stream.seek(0)
            return self._popen(argv, environment, stream, subprocess.PIPE, folder, with_rights)

    def _popen(
        self, argv: list[str], environment: dict[str, str], given: Any, output: Any, folder: str, with_rights: bool
    ) -> subprocess.Popen[bytes]:
        name, _is, value = self._mark.partition("=")
        try:
            return subprocess.Popen(
                argv,
                env={**environment, name: value},
                cwd=folder,
                stdin=given,
                stdout=output,
                stderr=subprocess.STDOUT,
                close_fds=True,
                preexec_fn=confinement(self.user) if self.confined and not with_rights else None,
            )
        except subprocess.SubprocessError as error:
            raise CheckFailed(f"{argv[0]} was not started: this host does not let it drop its privileges") from error
        except OSError as error:
            where = f" in {folder}" if folder != "/" else ""
            raise CheckFailed(f"{argv[0]} cannot be started{where}: {error.strerror}") from error

    def _listen(self, process: subprocess.Popen[bytes], heard: _Heard) -> bool:
        """Read a command's output. Returns whether it ended in time. Does not wait for what it leaves running."""
        pipe = cast(BinaryIO, process.stdout).fileno()
        os.set_blocking(pipe, False)
        poll = select.poll()
        poll.register(pipe, select.POLLIN)
        closed = False
        while True:
            ended = process.poll() is not None
            if closed and not ended:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL)
            elif not closed and poll.poll(0 if ended else POLL * 1000):
                closed = self._hear(pipe, heard)
                if not closed and self._deadline.left():
                    continue
            if ended:
                return True
            if not self._deadline.left():
                self._end(process)
                return False

    def _hear(self, pipe: int, heard: _Heard) -> bool:
        """Read what is available. Returns whether the output has ended."""
        piece = os.read(pipe, READ_SIZE)
        heard.add(piece)
        return not piece

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End a command and all that it started: a descendant may be what hangs."""
        begun = time.monotonic()
        below: dict[int, dict[str, Any]] = {}
        while time.monotonic() - begun < GIVE_UP:
            below.update({each["pid"]: each for each in [identity(process.pid), *descendants(process.pid)]})
            number = signal.SIGTERM if time.monotonic() - begun < GRACE else signal.SIGKILL
            for each in below.values():
                send(each, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL * 2)
                for each in below.values():
                    send(each, signal.SIGKILL)
                return


class _Heard:
    """The start and the end of one command's output; all of it also goes to the check's output."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._head = self._tail = ""

    def add(self, piece: bytes, final: bool = False) -> None:
        text = self._output.add(piece, final)
        room = JUDGED - len(self._head)
        self._head += text[:room]
        self._tail = (self._tail + text[room:])[-JUDGED:]

    def text(self) -> str:
        return (self._head + self._tail).strip()
