# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a check works with: a deadline, a folder of its own, and commands that are bounded and go on record."""

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

from ..quiesce.clock import Deadline
from ..quiesce.commands import quoted
from ..quiesce.processes import descendants, identity
from .ending import send
from .errors import CheckFailed
from .isolation import User, confinement
from .record import Output, Record

POLL = 0.05
GRACE = 2.0
"""Seconds between the polite and the hard end of a command that took too long."""
GIVE_UP = 7.0
"""Seconds after which a command that does not end is left: it waits for a disk, and nothing but that can end it."""
CLEAN_UP = 15.0
"""Seconds that a check may take to clean up after itself, whatever its own time was."""
READ_SIZE = 65536
JUDGED = 32768
"""Characters of one command's output, at its beginning and at its end, by which a check judges it."""


class Finished(NamedTuple):
    """How a command ended: exit status (negative: the signal), and its output and errors in one text."""

    rc: int
    output: str


class Bench:
    """``work`` is a folder that is removed after the check. ``report`` is called whenever the record has news."""

    def __init__(self, record: Record, work: str, seconds: float, mark: str, report: Callable[[], None]) -> None:
        self.record = record
        self.work = work
        self.own_mounts = False
        """Whether what is mounted is seen by this check alone, and ends with it."""
        self.disposable = False
        """Whether what is mounted goes with the drill, so that owners and links in it may be changed."""
        self.confined = False
        """Whether programs give up all rights before they begin."""
        self.user: User | None = None
        """As whom they run then; None: as this process does, which is nobody's but an ordinary user's."""
        self._mark = mark
        self._report = report
        self._seconds = seconds
        self._deadline = Deadline(seconds)

    def left(self) -> float:
        """Seconds that the check may still take. Raises CheckFailed once there are none."""
        left = self._deadline.left()
        if not left:
            raise CheckFailed(f"it took longer than its {self._seconds:g} s: look at what it did, or raise 'timeout'")
        return left

    @contextlib.contextmanager
    def cleaning_up(self) -> Iterator[None]:
        """Within this, commands have time of their own, also where the check has none left. Failures end it early."""
        before, self._deadline = self._deadline, Deadline(CLEAN_UP)
        try:
            with contextlib.suppress(CheckFailed):
                yield
        finally:
            self._deadline = before

    def folder(self, name: str) -> str:
        """A new folder in ``work``, which belongs to the user that programs run as."""
        path = os.path.join(self.work, name)
        os.mkdir(path, 0o700)
        if self.user is not None:
            os.chown(path, *self.user)
        return path

    def need(self, program: str, package: str) -> str:
        """A program's path. Raises CheckFailed where it is not installed."""
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
        """Run a command with nothing but ``environment``, and ``text`` as its input, and wait for its end.

        ``with_rights``: it keeps the rights of this process, as what mounts and copies has to.
        Raises CheckFailed where it cannot be started, or does not end in time; then it is ended, with what it started.
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
            why = "was ended" if process.returncode is not None else "cannot be ended, as it waits for a disk"
            raise CheckFailed(
                f"'{quoted(argv)}' {why}: the check took longer than its {self._seconds:g} s: "
                "look at what it did, or raise 'timeout'"
            )
        return Finished(process.returncode, heard.text())

    def serve(self, argv: list[str], environment: dict[str, str], log: str, folder: str) -> subprocess.Popen[bytes]:
        """Start a server with its output in a file. Whoever calls has to end it. Raises CheckFailed."""
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
        with tempfile.TemporaryFile(dir=self.work) as stream:  # a file: a command that does not read it keeps nobody
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
            raise CheckFailed(f"{argv[0]} is not started, as this host does not let it give up its rights") from error
        except OSError as error:
            where = f" in {folder}" if folder != "/" else ""
            raise CheckFailed(f"{argv[0]} cannot be started{where}: {error.strerror}") from error

    def _listen(self, process: subprocess.Popen[bytes], heard: _Heard) -> bool:
        """Hear a command out; whether it ended by itself in time. What it leaves running is not waited for."""
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
        """Take what there is; whether nothing comes any more."""
        piece = os.read(pipe, READ_SIZE)
        heard.add(piece)
        return not piece

    def _end(self, process: subprocess.Popen[bytes]) -> None:
        """End a command with all that it has started: what hangs may be below it."""
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
    """What one command has printed: its beginning and its end, and all of it into the check's own output."""

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
