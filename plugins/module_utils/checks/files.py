# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks required files: their hash, minimum size and age."""

from __future__ import annotations

import datetime
import hashlib
import os
import stat
from typing import Any

from ..host.errors import OptionError
from ..host.options import Option
from ..host.plain import plain
from .base import Check, Surroundings
from .bench import Bench
from .errors import CheckFailed
from .patterns import matching

PIECE = 1024 * 1024
MANY = 3
"""Patterns that a check's name repeats."""


class Wanted:
    """One entry of ``paths``: a path or pattern, and the requirements for its files."""

    def __init__(self, item: Any) -> None:
        given = {"path": item} if isinstance(item, str) else dict(item) if isinstance(item, dict) else {}
        unknown = sorted(set(given) - {"path", "sha256", "min_size", "newer_than"})
        if unknown:
            raise OptionError(
                f"check files: an entry of 'paths' has no key '{unknown[0]}': use path, sha256, min_size, newer_than"
            )
        self.path = given.get("path")
        if not isinstance(self.path, str) or not self.path.startswith("/"):
            raise OptionError(f"check files: an entry of 'paths' must be or contain an absolute path, not {item!r}")
        self.sha256 = _hash(given.get("sha256"))
        self.min_size = _size(given.get("min_size"))
        self.newer_than = _time(given.get("newer_than"))


def _hash(value: Any) -> str | None:
    if value is None:
        return None
    text = str(value).lower()
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise OptionError(f"check files: 'sha256' must be 64 hex digits, not {value!r}")
    return text


def _size(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError) as error:
        raise OptionError(f"check files: 'min_size' must be a number of bytes, not {value!r}") from error


def _time(value: Any) -> float | None:
    """Seconds since the epoch, from such a number or from an ISO 8601 time, which is UTC unless it has an offset."""
    if value is None:
        return None
    try:
        return float(value)
    except (TypeError, ValueError):
        pass
    try:
        moment = datetime.datetime.fromisoformat(str(value).replace("Z", "+00:00"))
    except ValueError as error:
        raise OptionError(
            f"check files: 'newer_than' must be a time such as 2026-11-23T02:15:00Z, not {value!r}"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.timezone.utc)).timestamp()


class FilesCheck(Check):
    """Every entry must match at least one file. Hashing is limited by number and size, except for expected hashes.

    That files exist proves nothing about their content.
    """

    name = "files"
    label = "Files"
    options = {
        "paths": Option(
            "items",
            "Paths or patterns ('**' for all directories below), or dicts of path, sha256, min_size and newer_than.",
            required=True,
        ),
        "max_files": Option("number", "Maximum number of files that are hashed.", default=1000),
        "max_bytes": Option("number", "Maximum number of bytes that are hashed.", default=100 * 1024**3),
    }

    def __init__(self, values: dict[str, Any], surroundings: Surroundings) -> None:
        super().__init__(values, surroundings)
        self._wanted = [Wanted(item) for item in values["paths"]]
        self._bytes = 0
        self._unhashed = 0
        self._known: dict[str, dict[str, Any]] = {}

    def subject(self) -> str:
        paths = [str(wanted.path) for wanted in self._wanted]
        more = [f"and {len(paths) - MANY} more"] if len(paths) > MANY else []
        return ", ".join(paths[:MANY] + more)

    def run(self, bench: Bench) -> str:
        problems: list[str] = []
        for wanted in self._wanted:
            try:
                self._check(wanted, bench)
            except CheckFailed as failure:
                problems.append(str(failure))
                bench.record.say(plain(str(failure)))
                bench.left()  # a timeout ends the whole check
        if problems:
            more = f" (and {len(problems) - 1} more)" if problems[1:] else ""
            raise CheckFailed(problems[0] + more)
        files = bench.record.files
        found = f"{len(files)} files, {sum(each['size'] for each in files)} bytes"
        return found + (f", {self._unhashed} of them beyond the limits and not hashed" if self._unhashed else "")

    def _check(self, wanted: Wanted, bench: Bench) -> None:
        for path in matching(self.places, str(wanted.path)):
            entry = self._known.get(path)
            descriptor = self.places.open(path, os.O_RDONLY)
            try:
                status = os.fstat(descriptor)
                if not stat.S_ISREG(status.st_mode):
                    raise CheckFailed(f"{self.places.there(path)} in the copy is not a regular file")
                if entry is None or (wanted.sha256 and not entry["sha256"]):
                    entry = self._look(path, descriptor, wanted, bench, entry)
                _judge(entry, status, wanted)
            finally:
                os.close(descriptor)

    def _look(
        self, path: str, descriptor: int, wanted: Wanted, bench: Bench, known: dict[str, Any] | None
    ) -> dict[str, Any]:
        """Record the size and the hash of a file."""
        name = self.places.there(path)
        entry = known or {"path": plain(name), "size": os.fstat(descriptor).st_size, "sha256": ""}
        if wanted.sha256 or self._within_limits(int(entry["size"])):
            entry["sha256"] = digest(descriptor, path, bench)
            self._unhashed -= 1 if known else 0
        else:
            self._unhashed += 1
        if known is None:
            self._known[path] = entry
            bench.record.files.append(entry)
        return entry

    def _within_limits(self, size: int) -> bool:
        hashed = sum(1 for entry in self._known.values() if entry["sha256"])
        if hashed >= self.values["max_files"] or self._bytes + size > self.values["max_bytes"]:
            return False
        self._bytes += size
        return True


def _judge(entry: dict[str, Any], status: os.stat_result, wanted: Wanted) -> None:
    name = entry["path"]
    if entry["size"] < wanted.min_size:
        raise CheckFailed(f"{name} has {entry['size']} bytes, fewer than the expected {wanted.min_size}")
    if wanted.sha256 and entry["sha256"] != wanted.sha256:
        raise CheckFailed(f"{name} is not the expected file: its SHA-256 is {entry['sha256']}")
    changed = status.st_mtime
    if wanted.newer_than is not None and changed <= wanted.newer_than:
        raise CheckFailed(f"{name} was last changed at {_iso(changed)}, not after {_iso(wanted.newer_than)}")


def _iso(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def digest(descriptor: int, path: str, bench: Bench) -> str:
    """The SHA-256 of an open file. Raises CheckFailed if no time is left, OSError if it cannot be read."""
    hashed = hashlib.sha256()
    with open(descriptor, "rb", buffering=0, closefd=False) as stream:
        while True:
            bench.left()
            try:
                piece = stream.read(PIECE)
            except OSError as error:  # it has no file name
                raise OSError(error.errno, error.strerror, path) from error
            if not piece:
                return hashed.hexdigest()
            hashed.update(piece)
