# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""This project's engine as a contender: commands that run engine.py."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from .contender import ENGINE_OPERATIONS, FULL, Backup, Contender, last_json, quote

_ROOT = Path(__file__).resolve().parents[2]


class Ours(Contender):
    """The engine with its defaults: zstd level 1, AES-256-GCM; it is told the changed extents."""

    name = "openisb"
    remark = "is told the changed extents"
    operations = ENGINE_OPERATIONS
    level = 1

    def version(self) -> str:
        version = next(line.split()[1] for line in (_ROOT / "galaxy.yml").open() if line.startswith("version:"))
        commit = subprocess.run(
            ["git", "-C", _ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
        ).stdout.strip()
        return f"openisb.backup {version} {commit}".strip()

    def prepare(self) -> str:
        # Compiled ahead, as installers do with the other engines that are written in Python.
        engine = _ROOT / "plugins" / "module_utils" / "saveset"
        return f"{quote(sys.executable, '-m', 'compileall', '-q', engine)} && {self._engine('create')}"

    def backup(self, backup: Backup) -> str:
        options = ["--number", str(backup.number), "--level", str(self.level)]
        if backup.extents is not None:
            changes = self.folder / "changes.json"
            changes.write_text(json.dumps(backup.extents))
            options += ["--changes", str(changes)]
        return self._engine("backup", *options, str(backup.image))

    def restore(self, target: Path, latest: int) -> str:
        return self._engine("restore", str(target))

    def verify(self, latest: int) -> str:
        return self._engine("verify")

    def prune(self, latest: int) -> str:
        return self._engine("prune")

    def source_read_bytes(self, log: Path) -> int | None:
        return int(last_json(log)["bytes_read"])

    def _engine(self, *words: str) -> str:
        return engine_command(self.repository, *words)


class OursCompact(Ours):
    """The engine's compact setting: zstd level 3."""

    name = "openisb_compact"
    remark = ""
    operations = (FULL,)
    level = 3


def engine_command(repository: Path, *words: str) -> str:
    """A command that runs engine.py."""
    return quote(sys.executable, Path(__file__).with_name("engine.py"), repository, *words)
