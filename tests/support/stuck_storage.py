# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Storage that stops answering when it is told to: a file whose blocks a server has, which can be stopped or killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

START = 10  # seconds


class StuckStorage:
    """``image`` is the file; a filesystem in it needs a loop device. Close it once nothing uses the file any more."""

    def __init__(self, folder: Path, mebibytes: int) -> None:
        folder.mkdir(parents=True)
        self.image = folder / "image"
        self.image.touch()
        socket = folder / "socket"
        self._server = _start("nbdkit", "--foreground", "--unix", str(socket), "memory", f"{mebibytes}M")
        _wait(socket.exists)
        self._file = _start("nbdfuse", str(self.image), f"nbd+unix:///?socket={socket}")
        _wait(lambda: os.path.ismount(self.image))

    def stop(self) -> None:
        """Answer nothing any more, neither good nor bad."""
        self._server.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Answer again, also what was asked meanwhile."""
        self._server.send_signal(signal.SIGCONT)

    def lose(self) -> None:
        """From now on every read and write fails."""
        self._server.kill()

    def close(self) -> None:
        """Take the file away."""
        subprocess.run(["fusermount3", "-u", "-z", str(self.image)], check=False, timeout=START)
        self.go_on()
        for process in (self._file, self._server):
            process.terminate()
            process.wait(START)


def _start(*command: str) -> subprocess.Popen[bytes]:
    silent = subprocess.DEVNULL
    return subprocess.Popen(command, stdin=silent, stdout=silent, stderr=silent)


def _wait(until: Callable[[], bool]) -> None:
    end = time.monotonic() + START
    while not until():
        assert time.monotonic() < end, "nbdkit and nbdfuse do not start"
        time.sleep(0.01)
