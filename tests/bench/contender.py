# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the benchmark asks of every contender."""

from __future__ import annotations

import abc
import dataclasses
import json
import shlex
import subprocess
import typing as t
from pathlib import Path

from .change import Extent

PASSPHRASE = "only a benchmark"

#: Operations, in the order in which a round does them.
FULL = "full"
UNCHANGED = "unchanged"
RESTORE = "restore"
VERIFY = "verify"
INCREMENTAL = {"incremental_0.1pct": 0.001, "incremental_1pct": 0.01, "incremental_10pct": 0.1}
RESTORE_CHANGED = "restore_changed"
PRUNE = "prune"
ENGINE_OPERATIONS = (FULL, UNCHANGED, RESTORE, VERIFY, *INCREMENTAL, RESTORE_CHANGED, PRUNE)


@dataclasses.dataclass(frozen=True)
class Backup:
    """One backup of the image.

    ``number`` counts the contender's backups from 0; ``extents`` is what changed since the one before, None for a first
    backup; only contenders that can take such a list use it.
    """

    image: Path
    number: int
    extents: t.Sequence[Extent] | None


class Contender(abc.ABC):
    """A backup engine, driven by shell commands; it keeps everything it stores in ``folder``."""

    name: t.ClassVar[str]
    #: What a reader of the result has to know.
    remark: t.ClassVar[str] = ""
    operations: t.ClassVar[tuple[str, ...]] = ENGINE_OPERATIONS

    def __init__(self, folder: Path, tools: Path) -> None:
        """:param tools: where scripts/bench-peers installed what Debian does not have."""
        self.folder = folder
        self.repository = folder / "repository"
        self.tools = tools

    @property
    def environment(self) -> dict[str, str]:
        """Variables for all commands."""
        return {}

    @abc.abstractmethod
    def version(self) -> str:
        """The version, as the contender itself tells it."""

    def prepare(self) -> str:
        """A command that makes an empty repository; not measured."""
        return f"mkdir {quote(self.repository)}"

    @abc.abstractmethod
    def backup(self, backup: Backup) -> str:
        """A command that backs the image up."""

    def restore(self, target: Path, latest: int) -> str:
        """A command that writes backup number ``latest`` over ``target``, a file as large as the image."""
        raise NotImplementedError

    def verify(self, latest: int) -> str:
        """A command that checks all stored bytes of backup ``latest``, and fails when one is wrong."""
        raise NotImplementedError

    def prune(self, latest: int) -> str:
        """A command that removes all backups but number ``latest``, the latest, and what only they needed."""
        raise NotImplementedError

    def source_read_bytes(self, log: Path) -> int | None:
        """What the last backup read of the image, where its output tells."""
        return None


def quote(*words: object) -> str:
    """Words of a shell command."""
    return shlex.join(str(word) for word in words)


def output_of(*command: object) -> str:
    """The first line that a command prints."""
    done = subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True)
    return (done.stdout or done.stderr).splitlines()[0].strip()


def last_json(log: Path) -> dict[str, t.Any]:
    """The JSON object in the last line of a log."""
    return t.cast("dict[str, t.Any]", json.loads(log.read_text().splitlines()[-1]))
