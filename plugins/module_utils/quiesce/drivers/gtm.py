# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes regions of a GT.M or YottaDB database: updates wait, readers continue, and the files are complete on disk.

The header of each database file says who froze it. This driver relies on that: it shows whether a freeze still holds,
and whether it is ours.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from typing import Any, Callable

from ...host.clock import Deadline
from ...host.commands import Finished, run
from ...host.errors import DriverError
from ...host.mounts import current, mount_of
from ...host.options import Option
from .base import Driver, Surroundings
from .gtm_header import PLACES, HeaderReader, Region, parse_dump, parse_places, replaced

REGIONS = "regions"
PROCESSES = "processes"
FILES = "files"

WAITED = 0.8
"""Part of the driver's ``timeout`` for which a thaw may wait for filesystems."""

POLL = 0.01


class GtmDriver(Driver):
    """Regions of one global directory.

    Marks: ``regions`` (those that may be frozen), ``processes`` (ids of the processes that may have frozen them) and
    ``files`` (device and inode of their files by path, as far as known).
    """

    name = "gtm"
    options = {
        "gtm_dist": Option("path", "The directory of GT.M or YottaDB, which contains mupip.", required=True),
        "gbldir": Option("path", "The global directory.", required=True),
        REGIONS: Option("list", "The regions; '*' for all.", default=["*"]),
        "environment": Option("dict", "Additional environment variables for mupip.", default={}),
    }

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        super().__init__(values, marks)
        self._reader: HeaderReader | None = None
        self._files: list[str] = []

    def paths(self) -> dict[str, str]:
        temporary = self.values["environment"].get("gtm_tmp", "/tmp")
        return {"GT.M": self.values["gtm_dist"], "GT.M's temporary files": temporary}

    def check(self, surroundings: Surroundings) -> str:
        mupip = self._in_dist("mupip")
        if not os.access(mupip, os.X_OK):
            raise DriverError(f"gtm: there is no mupip at {mupip}: install GT.M there, or correct 'gtm_dist'")
        finished, regions = self._dump_headers(self.values[REGIONS])
        if "%GTM-E-" in finished.output:  # mupip continues with the other regions and reports success
            raise DriverError(self._unreadable(finished, self.values[REGIONS]))
        self._refuse_frozen(regions)
        return f"can freeze {', '.join(region.name for region in regions)} of {self.values['gbldir']}"

    def _refuse_frozen(self, regions: list[Region]) -> None:
        """Raise DriverError if any region is frozen, with the command that unfreezes all of them."""
        frozen = [region for region in regions if region.freezer]
        if not frozen:
            return
        processes = sorted({region.process for region in frozen})
        by = ", ".join(f"process {process}{'' if _exists(process) else ', which is gone'}" for process in processes)
        mend = (
            f"gtm_dist={self.values['gtm_dist']} gtmgbldir={self.values['gbldir']} "
            f"{self._in_dist('mupip')} freeze -off -override {','.join(region.name for region in frozen)}"
        )
        raise DriverError(
            f"gtm: region {', '.join(region.name for region in frozen)} of {self.values['gbldir']} is already frozen "
            f"by {by}: wait until that ends, or end the freeze with '{mend}'"
        )

    def prepare(self) -> None:
        """Learn how to read the headers without mupip; if that fails, mupip reads them."""
        try:
            environment = dict(self._environment(), gtmgbldir=self._in_dist("gtmhelp.gld"))
            printed = run([self._in_dist("mumps"), "-run", "%XCMD", PLACES], environment, self.timeout)
            places = parse_places(printed.output)
            regions = self._headers(self.values[REGIONS])
            self._files = [region.file for region in regions]
            if places:
                self._reader = HeaderReader(regions, places)
        except (DriverError, OSError):
            self._reader = None

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def freeze(self) -> None:
        self.stop_if_cancelled()
        self._refuse_frozen(self._read_directly())  # mupip would silently take over a freeze by the same user
        self._mark_taken([])
        started: list[int] = []
        try:
            finished = self._mupip_run(
                ["freeze", "-on", ",".join(self.values[REGIONS])],
                cancelled=self.cancelled,
                started=lambda pid: self._mark_taken(started, pid),
            )
        finally:
            # A thaw may have cleared the marks meanwhile, while mupip was about to freeze.
            self._mark_taken(started)
        if finished.status != 0:
            raise DriverError(f"gtm: mupip freeze failed (exit status {finished.status}): {finished.output}")
        self._check_frozen(finished.pid)

    def _mark_taken(self, processes: list[int], pid: int = 0) -> None:
        if pid:
            processes.append(pid)
        self.mark(PROCESSES, list(processes))
        files = {} if self._reader is None else self._reader.identities()
        if self.marks.get(FILES) != files:
            self.mark(FILES, files)
        self.mark(REGIONS, list(self.values[REGIONS]))

    def _check_frozen(self, pid: int) -> None:
        """Raise DriverError unless the headers of all regions say that this process froze them."""
        if self._all_taken_by([pid]):
            return
        for region in self._headers(self.values[REGIONS]):
            if not region.freezer:
                raise DriverError(f"gtm: mupip reported region {region.name} as frozen, but the file's header does not")
            if region.process != pid:
                self._refuse_frozen([region])

    def thaw(self) -> list[str]:
        if not self.marks.get(REGIONS):
            return []
        self._check_files()
        self._wait_for_filesystems()
        ours, broken = self._sort_out()
        if ours:
            self._unfreeze(ours)
        self.clear_marks()
        return broken

    def _check_files(self) -> None:
        """Raise DriverError if a path shows another file than the frozen one: mupip knows only paths."""
        others = replaced(self.marks.get(FILES, {}))
        if others:
            raise DriverError(
                f"gtm: {', '.join(others)} is not the file that was frozen, which stays frozen: unmount what is "
                "mounted over it, or move the file back, and thaw again"
            )

    def _wait_for_filesystems(self) -> None:
        """Do not run mupip while a file that it would write to is on a frozen filesystem. Raises DriverError.

        It would block in the kernel, and a kill would take effect only after it has started to write.
        """
        deadline = Deadline(WAITED * self.timeout)
        while True:
            waits = self._on_frozen()
            if not waits:
                return
            if not deadline.left():
                raise DriverError(f"gtm: {waits} is not thawed yet: the database is unfrozen once it is")
            time.sleep(POLL)

    def _on_frozen(self) -> str:
        """A possibly frozen filesystem with a file of the database; empty if there is none."""
        frozen = self.may_be_frozen()
        if not frozen:
            return ""
        mounts = current()
        for path in [self.values["gbldir"], *self._files, *self.marks.get(FILES, {})]:
            with contextlib.suppress(OSError, KeyError):
                device = mount_of(path, mounts).device
                if device in frozen:
                    return frozen[device]
        return ""

    def _sort_out(self) -> tuple[list[str], list[str]]:
        """The regions to unfreeze, and what happened to the others."""
        if self._all_taken_by(self.marks.get(PROCESSES, [])):
            return list(self.marks[REGIONS]), []
        ours, broken = [], []
        for region in self._headers(self.marks[REGIONS]):
            if region.freezer and self._is_ours(region):
                ours.append(region.name)
            else:
                broken.append(f"gtm: region {region.name} was unfrozen by somebody else")
        return ours, broken

    def _all_taken_by(self, processes: list[int]) -> bool:
        """Whether the files, read directly, show that these processes froze all regions. If not, ask mupip."""
        regions = self._read_directly()
        return bool(regions) and all(region.freezer and region.process in processes for region in regions)

    def _read_directly(self) -> list[Region]:
        """The regions according to their files, without mupip; none if that cannot be read."""
        try:
            return [] if self._reader is None else self._reader.read()
        except OSError:
            return []

    def _is_ours(self, region: Region) -> bool:
        """If the freezing process could not be recorded, a freeze by a dead process counts as ours."""
        processes = self.marks.get(PROCESSES, [])
        return region.process in processes or not (processes or _exists(region.process))

    def _unfreeze(self, regions: list[str]) -> None:
        finished = self._mupip_run(["freeze", "-off", "-override", ",".join(regions)])
        if finished.status != 0:
            raise DriverError(
                f"gtm: mupip cannot unfreeze {', '.join(regions)} (exit status {finished.status}): {finished.output}"
            )

    def status(self) -> dict[str, Any]:
        frozen = [region.name for region in self._headers(self.values[REGIONS]) if region.freezer]
        return {"frozen": bool(frozen), REGIONS: frozen}

    def _headers(self, regions: list[str]) -> list[Region]:
        finished, found = self._dump_headers(regions)
        if finished.status != 0 or not found:
            raise DriverError(self._unreadable(finished, regions))
        return found

    def _dump_headers(self, regions: list[str]) -> tuple[Finished, list[Region]]:
        finished = self._mupip_run(["dumpfhead", "-region", ",".join(regions)])
        return finished, parse_dump(finished.output)

    def _unreadable(self, finished: Finished, regions: list[str]) -> str:
        messages = [line for line in finished.output.split("\n") if line.startswith("%")]
        return (
            f"gtm: the regions {', '.join(regions)} of {self.values['gbldir']} cannot be read "
            f"(exit status {finished.status}): {' '.join(messages) or finished.output[-200:]}"
        )

    def _mupip_run(
        self,
        arguments: list[str],
        cancelled: threading.Event | None = None,
        started: Callable[[int], None] | None = None,
    ) -> Finished:
        return run([self._in_dist("mupip"), *arguments], self._environment(), self.timeout, cancelled, started)

    def _in_dist(self, name: str) -> str:
        return os.path.join(self.values["gtm_dist"], name)

    def _environment(self) -> dict[str, str]:
        base = {"HOME": "/", "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        own = {"gtm_dist": self.values["gtm_dist"], "gtmgbldir": self.values["gbldir"]}
        return {**base, "gtmroutines": self._routines(), **self.values["environment"], **own}

    def _routines(self) -> str:
        """Where GT.M's own routines are, some of which mupip runs: in a library, or single files in older versions."""
        library = self._in_dist("libgtmutil.so")
        return f"{library} {self.values['gtm_dist']}" if os.path.exists(library) else str(self.values["gtm_dist"])


def _exists(process: int) -> bool:
    return os.path.exists(f"/proc/{process}")
