# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Freezes regions of a GT.M or YottaDB database: updates wait, readers go on, and the files are complete on disk.

``mupip freeze`` writes into each database file's header who froze it: the user (``freeze``) and the process
(``image_count``). That header is the truth on which this driver relies: it tells a freeze that holds from one that does
not, and ours from anybody else's.
"""

from __future__ import annotations

import os
import re
import threading
from typing import Any, Callable, NamedTuple

from ..commands import Finished, run
from ..errors import DriverError
from .base import Driver, Option, Surroundings

REGIONS = "regions"
PROCESSES = "processes"

_REGION = re.compile(r"^Fileheader dump of region (\S+)$")
_FILE = re.compile(r"^Dumping fileheader of (.+)$")
_FIELD = re.compile(r'^record\("sgmnt_data\.(freeze|image_count)"\)=(\d+)$')


class Region(NamedTuple):
    """A region as its file's header tells: ``freezer`` is 0 or a user, ``process`` the process that froze it."""

    name: str
    file: str
    freezer: int
    process: int


def parse_headers(output: str) -> list[Region]:
    """Regions from what ``mupip dumpfhead -region`` printed."""
    regions: list[dict[str, Any]] = []
    for line in output.splitlines():
        found = _REGION.match(line)
        if found:
            regions.append({"name": found.group(1), "file": "", "freeze": 0, "image_count": 0})
            continue
        if not regions:
            continue
        found = _FILE.match(line)
        if found:
            regions[-1]["file"] = found.group(1)
        found = _FIELD.match(line)
        if found:
            regions[-1][found.group(1)] = int(found.group(2))
    return [Region(item["name"], item["file"], item["freeze"], item["image_count"]) for item in regions]


class GtmDriver(Driver):
    """Regions of one global directory.

    Marks: ``regions``, those that may be frozen, and ``processes``, the ids of the processes that may have done it.
    """

    name = "gtm"
    options = {
        "gtm_dist": Option("path", "The folder of GT.M or YottaDB, with mupip in it.", required=True),
        "gbldir": Option("path", "The global directory.", required=True),
        REGIONS: Option("list", "The regions; '*' for all.", default=["*"]),
        "environment": Option("dict", "More environment variables for mupip.", default={}),
    }

    def paths(self) -> dict[str, str]:
        temporary = self.values["environment"].get("gtm_tmp", "/tmp")
        return {"GT.M": self.values["gtm_dist"], "GT.M's temporary files": temporary}

    def check(self, surroundings: Surroundings) -> str:
        mupip = self._mupip()
        if not os.access(mupip, os.X_OK):
            raise DriverError(f"gtm: there is no mupip at {mupip}: install GT.M there, or correct 'gtm_dist'")
        regions = self._headers(self.values[REGIONS])
        for region in regions:
            if region.freezer:
                raise DriverError(self._frozen_by_somebody(region))
        return f"can freeze {', '.join(region.name for region in regions)} of {self.values['gbldir']}"

    def _frozen_by_somebody(self, region: Region) -> str:
        gone = "" if _exists(region.process) else ", which is gone"
        mend = (
            f"gtm_dist={self.values['gtm_dist']} gtmgbldir={self.values['gbldir']} "
            f"{self._mupip()} freeze -off -override {region.name}"
        )
        return (
            f"gtm: region {region.name} of {self.values['gbldir']} is frozen already, "
            f"by process {region.process}{gone}: wait for what froze it, or end the freeze with '{mend}'"
        )

    def freeze(self) -> None:
        self.stop_if_cancelled()
        self._mark_taken([])
        started: list[int] = []
        try:
            finished = self._mupip_run(
                ["freeze", "-on", ",".join(self.values[REGIONS])],
                cancelled=self.cancelled,
                started=lambda pid: self._mark_taken(started, pid),
            )
        finally:
            # A thaw may have come meanwhile and have cleared the marks, while mupip was about to freeze.
            self._mark_taken(started)
        if finished.status != 0:
            raise DriverError(f"gtm: mupip freeze failed (exit status {finished.status}): {finished.output}")
        self._check_frozen(finished.pid)

    def _mark_taken(self, processes: list[int], pid: int = 0) -> None:
        if pid:
            processes.append(pid)
        self.mark(PROCESSES, list(processes))
        self.mark(REGIONS, list(self.values[REGIONS]))

    def _check_frozen(self, pid: int) -> None:
        for region in self._headers(self.values[REGIONS]):
            if not region.freezer:
                raise DriverError(f"gtm: mupip called region {region.name} frozen, but the file's header does not")
            if region.process != pid:
                raise DriverError(self._frozen_by_somebody(region))

    def thaw(self) -> list[str]:
        if not self.marks.get(REGIONS):
            return []
        ours, broken = [], []
        for region in self._headers(self.marks[REGIONS]):
            if region.freezer and self._is_ours(region):
                ours.append(region.name)
            else:
                broken.append(f"gtm: region {region.name} was unfrozen by somebody else")
        if ours:
            self._unfreeze(ours)
        self.clear_marks()
        return broken

    def _is_ours(self, region: Region) -> bool:
        """Where the freezing process could not be recorded any more, what a dead process froze counts as ours."""
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
        finished = self._mupip_run(["dumpfhead", "-region", ",".join(regions)])
        found = parse_headers(finished.output)
        if finished.status != 0 or not found:
            raise DriverError(
                f"gtm: the regions {', '.join(regions)} of {self.values['gbldir']} cannot be read "
                f"(exit status {finished.status}): {_last_lines(finished.output)}"
            )
        return found

    def _mupip_run(
        self,
        arguments: list[str],
        cancelled: threading.Event | None = None,
        started: Callable[[int], None] | None = None,
    ) -> Finished:
        return run([self._mupip()] + arguments, self._environment(), self.timeout, cancelled, started)

    def _mupip(self) -> str:
        return os.path.join(self.values["gtm_dist"], "mupip")

    def _environment(self) -> dict[str, str]:
        base = {"HOME": "/", "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        own = {"gtm_dist": self.values["gtm_dist"], "gtmgbldir": self.values["gbldir"]}
        return {**base, "gtmroutines": self._routines(), **self.values["environment"], **own}

    def _routines(self) -> str:
        """Where GT.M's own routines are, some of which mupip runs: in a library, or loose in older versions."""
        library = os.path.join(self.values["gtm_dist"], "libgtmutil.so")
        return f"{library} {self.values['gtm_dist']}" if os.path.exists(library) else str(self.values["gtm_dist"])


def _exists(process: int) -> bool:
    return os.path.exists(f"/proc/{process}")


def _last_lines(output: str) -> str:
    return " ".join(output.splitlines()[-2:])
