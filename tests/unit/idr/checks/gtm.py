# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Real GT.M databases of two regions, of which tests take copies."""

from __future__ import annotations

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

GTM_DIST = "/usr/lib/x86_64-linux-gnu/fis-gtm/V7.0-005_x86_64"


DATA = 4 * 1024 * 1024
"""Where the blocks of a file begin."""


class Gtm:
    """A database in a folder. A process keeps it open, as production's do, so that its shared memory stays."""

    def __init__(
        self,
        folder: Path,
        files: tuple[str, str] | None = None,
        environment: dict[str, str] | None = None,
        routines: Path | None = None,
        journal: bool = False,
    ) -> None:
        self.folder = folder
        first, second = files or (f"{folder}/default.dat", f"{folder}/b.dat")
        own = f".({routines})" if routines else "."
        self.environment = {
            "gtm_dist": GTM_DIST,
            "gtmgbldir": str(folder / "mumps.gld"),
            "gtmroutines": " ".join([own, f"{GTM_DIST}/libgtmutil.so", GTM_DIST]),
            "gtm_tmp": str(folder.parent),
            "HOME": str(folder),
            "PATH": "/usr/bin:/bin",
            **(environment or {}),
        }
        commands = [
            "change -region DEFAULT -key_size=255 -record_size=4000",
            f'change -segment DEFAULT -file="{first}"',
            f'add -segment B -file="{second}"',
            "add -region BREG -dynamic=B",
            "add -name B* -region=BREG",
            "exit",
        ]
        self.run("mumps", "-run", "GDE", typed="\n".join(commands) + "\n")
        self.run("mupip", "create")
        if journal:  # as for a database that has to survive a crash
            self.run("mupip", "set", "-journal=enable,on,before", "-region", "*")

    def run(self, program: str, *arguments: str, typed: str | None = None) -> str:
        done = subprocess.run(
            [f"{GTM_DIST}/{program}", *arguments],
            env=self.environment,
            cwd=self.folder,
            input=typed,
            stdin=None if typed else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=20,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def start(self, code: str) -> subprocess.Popen[bytes]:
        """Run M without waiting for its end."""
        return subprocess.Popen(
            [f"{GTM_DIST}/mumps", "-run", "%XCMD", code],
            env=self.environment,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def value(self, code: str) -> str:
        return self.run("mumps", "-run", "%XCMD", f"write {code}").strip()

    def do(self, code: str) -> str:
        return self.run("mumps", "-run", "%XCMD", code)

    @contextlib.contextmanager
    def writer(self, code: str) -> Iterator[None]:
        process = self.start(code)
        try:
            yield
        finally:
            process.kill()
            process.wait()

    @contextlib.contextmanager
    def opened(self) -> Iterator[Gtm]:
        """Within this some process has the database open, and it has some content."""
        self.do("for i=1:1:3000 set ^A(i)=$justify(i,200),^B(i)=i")
        try:
            with self.writer("set x=$get(^A(1)),y=$get(^B(1)) hang 600"):
                time.sleep(0.3)
                yield self
        finally:
            self.run("mupip", "freeze", "-off", "-override", "*")
            self.run("mupip", "rundown", "-region", "*")
