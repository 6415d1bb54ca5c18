# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks databases of GT.M and YottaDB: each file is closed as after a server crash, and checked by ``mupip integ``.

A copied file is marked as frozen and names its server's shared memory; both must be reset first. That changes its
header, so it is done on an overlay, or else on a copy. Journal files are not used: a frozen database is complete
without them.

GT.M's programs get no names from the copy: GDE's input language can run commands. They find each file under the check's
own name, in the check's own directory.
"""

from __future__ import annotations

import fnmatch
import os
import re
from typing import Any

from ..host.errors import OptionError
from ..host.options import Option
from ..host.plain import plain
from .base import Check, Surroundings, telling
from .bench import Bench, Finished
from .beneath import read_file
from .errors import CheckFailed
from .owned import own_file
from .patterns import is_wild, literal, matching

CLEAN = "No errors detected by integ"
DESIGN = 'change -segment DEFAULT -file="{file}"\nexit\n'
LARGEST_DIRECTORY = 64 * 1024 * 1024
"""Maximum bytes of a global directory: one with a thousand regions has less than 1 MiB."""
IN_GDE = re.compile(r"[A-Za-z0-9/._-]+")
"""What GDE's input may contain."""
SHOW = "show -command\nexit\n"
REGION = re.compile(r"^ADD -REGION (\S+) -DYNAMIC(?:_SEGMENT)?=(\S+)")
SEGMENT = re.compile(r'^ADD -SEGMENT (\S+) -FILE(?:_NAME)?="(.*)"\Z')


TROUBLE = ("%GTM-E", "%YDB-E", "%GTM-F", "%SYSTEM-E", "Error ")


class GtmCheck(Check):
    """The files of a global directory's regions, or the listed ones."""

    name = "gtm"
    label = "M database"
    proves = True
    confined = True
    options = {
        "gtm_dist": Option("path", "The directory of GT.M or YottaDB on this host, with mupip in it.", required=True),
        "gbldir": Option("path", "The global directory, which names the database files."),
        "regions": Option("list", "The regions of 'gbldir'; '*' for all.", default=["*"]),
        "files": Option("list", "The database files, or patterns for them; instead of 'gbldir'."),
        "copy": Option("bool", "Whether to work on copies even if the files may be changed.", default=False),
        "user": Option("str", "The user of this host to run as, if not that of all checks."),
        "environment": Option(
            "dict", "Additional environment variables, also for names in the global directory.", default={}
        ),
        "timeout": Option("number", "Seconds that the check may take.", default=3600),
    }

    def __init__(self, values: dict[str, Any], surroundings: Surroundings) -> None:
        super().__init__(values, surroundings)
        self._folder = ""
        if (values["gbldir"] is None) == (values["files"] is None):
            raise OptionError("check gtm needs either 'gbldir' or 'files'")
        if any(not path.startswith("/") for path in values["files"] or []):
            raise OptionError("check gtm: 'files' must be absolute paths")

    def subject(self) -> str:
        return str(self.values["gbldir"] or ", ".join(self.values["files"]))

    def account(self) -> str:
        return str(self.values["user"] or super().account())

    def run(self, bench: Bench) -> str:
        if not IN_GDE.fullmatch(bench.work):
            raise CheckFailed(
                f"GDE accepts no file in {bench.work}: set 'scratch' to a path of only letters, digits and '/._-'"
            )
        self._folder = bench.folder("gtm")
        for program in ("mupip", "mumps"):
            if not os.access(self._in_dist(program), os.X_OK):
                raise CheckFailed(
                    f"there is no {program} in {self.values['gtm_dist']}: install GT.M there, or correct 'gtm_dist'"
                )
        databases = self._files_of_directory(bench) if self.values["gbldir"] else self._named_files()
        problems = [
            problem
            for problem in (self._check(number, path, bench) for number, path in enumerate(databases))
            if problem
        ]
        if problems:
            more = f" (and {len(problems) - 1} more of {len(databases)} files)" if problems[1:] else ""
            raise CheckFailed(problems[0] + more)
        return f"{len(databases)} database file{'s' if databases[1:] else ''} without errors"

    # Which files

    def _named_files(self) -> list[str]:
        found: list[str] = []
        for pattern in self.values["files"]:
            there = matching(self.places, pattern, must=not is_wild(pattern))
            found += [path for path in there if path not in found]
        if not found:
            raise CheckFailed(f"{self.subject()}: there is no such file in the copy")
        return found

    def _files_of_directory(self, bench: Bench) -> list[str]:
        """The files of the selected regions.

        GDE reads a copy of the directory and prints production's file names; it opens none of the files.
        """
        (there,) = matching(self.places, literal(self.values["gbldir"]))
        directory = os.path.join(self._folder, "regions.gld")
        content = read_file(*self.places.split(self.places.there(there)), LARGEST_DIRECTORY, self.values["gbldir"])
        _write(directory, content, bench)
        told = self._call(bench, "mumps", "-run", "GDE", gbldir=directory, text=SHOW)
        lines = told.output.split("\n")
        regions = [(found[1], found[2]) for found in map(REGION.match, lines) if found]
        files = {found[1]: found[2] for found in map(SEGMENT.match, lines) if found}
        if told.rc != 0 or not regions or not all(segment in files for _region, segment in regions):
            said = telling(told.output, "%GDE-E", "%GDE-F", "%GTM-E", "%YDB-E")
            raise CheckFailed(f"{self.values['gbldir']} cannot be read (exit status {told.rc}): {said}")
        chosen = [self._file_name(files[segment]) for region, segment in regions if self._is_chosen(region)]
        if not chosen:
            raise CheckFailed(f"{self.values['gbldir']} has no region {', '.join(self.values['regions'])}")
        return [path for name in dict.fromkeys(chosen) for path in matching(self.places, literal(name))]

    def _is_chosen(self, region: str) -> bool:
        return any(fnmatch.fnmatchcase(region.upper(), name.upper()) for name in self.values["regions"])

    def _file_name(self, name: str) -> str:
        """A file by its name in the global directory: with variables, and relative to that directory."""
        for variable, value in self.values["environment"].items():
            name = name.replace(f"${{{variable}}}", value).replace(f"${variable}", value)
        if "$" in name:
            raise CheckFailed(f"{self.values['gbldir']} names {name}: set its variable in 'environment'")
        path = os.path.join(os.path.dirname(self.values["gbldir"]), name)
        return path if "." in os.path.basename(path) else f"{path}.dat"

    # One file

    def _check(self, number: int, path: str, bench: Bench) -> str:
        """The problem of a database file; empty if there is none."""
        name = self.places.there(path)
        bench.left()
        file = own_file(self.places, path, f"db-{number}.dat", bench, self.values["copy"])
        bench.record.say(plain(f"{os.path.basename(file)} is {name}"))
        directory = os.path.join(self._folder, f"{number}.gld")
        made = self._call(bench, "mumps", "-run", "GDE", gbldir=directory, text=DESIGN.format(file=file))
        if made.rc != 0 or not os.path.exists(directory):
            return f"{name}: no global directory can be created for it: {telling(made.output, '%GDE-E', '%GTM-E')}"
        try:
            return self._judge(name, file, directory, bench)
        finally:
            with bench.cleaning_up():  # leaves no shared memory behind
                self._call(bench, "mupip", "rundown", "-file", file, "-override", gbldir=directory)

    def _judge(self, name: str, file: str, directory: str, bench: Bench) -> str:
        steps = (
            ["rundown", "-file", file, "-override"],
            ["freeze", "-off", "-override", "*"],
            ["integ", "-noonline", "-file", file],
        )
        for arguments in steps:
            finished = self._call(bench, "mupip", *arguments, gbldir=directory)
            if finished.rc != 0 or (arguments[0] == "integ" and CLEAN not in finished.output):
                said = telling(_joined(finished.output), *TROUBLE)
                return f"{name}: mupip {arguments[0]} failed (exit status {finished.rc}): {said}"
        return ""

    def _call(self, bench: Bench, program: str, *arguments: str, gbldir: str, text: str | None = None) -> Finished:
        return bench.call([self._in_dist(program), *arguments], self._environment(gbldir), text, self._folder)

    def _in_dist(self, name: str) -> str:
        return os.path.join(self.values["gtm_dist"], name)

    def _environment(self, gbldir: str) -> dict[str, str]:
        folder = self._folder
        base = {"HOME": folder, "LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "gtm_tmp": folder}
        own = {"gtm_dist": self.values["gtm_dist"], "gtmgbldir": gbldir, "gtm_log": folder}
        library, dist = self._in_dist("libgtmutil.so"), self.values["gtm_dist"]
        routines = f"{library} {dist}" if os.path.exists(library) else f".({dist})"  # older versions compile them first
        return {**base, **self.values["environment"], "gtmroutines": routines, **own}


def _joined(output: str) -> str:
    """The output of integ, with the place and the kind of an error on one line with its name."""
    return re.sub(r"(Nature: \S+)\n", r"\1 ", output)


def _write(path: str, content: bytes, bench: Bench) -> None:
    with open(path, "xb") as stream:
        stream.write(content)
    if bench.user is not None:
        os.chown(path, *bench.user)
