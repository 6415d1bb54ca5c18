# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""casync, from Debian."""

from __future__ import annotations

from pathlib import Path

from ..contender import (
    FULL,
    INCREMENTAL,
    PRUNE,
    RESTORE,
    RESTORE_CHANGED,
    UNCHANGED,
    Backup,
    Contender,
    output_of,
    quote,
)


class Casync(Contender):
    """casync with its defaults: content-defined chunks of about 64 KiB, a file each."""

    name = "casync"
    remark = "cannot encrypt; has no command that verifies"
    operations = (FULL, UNCHANGED, RESTORE, *INCREMENTAL, RESTORE_CHANGED, PRUNE)

    def version(self) -> str:
        return output_of("casync", "--version")

    def backup(self, backup: Backup) -> str:
        return quote("casync", "make", f"--store={self._store}", self._index(backup.number), backup.image)

    def restore(self, target: Path, latest: int) -> str:
        return quote("casync", "extract", f"--store={self._store}", "--seed-output=no", self._index(latest), target)

    def prune(self, latest: int) -> str:
        remove = quote("rm", *(self._index(number) for number in range(latest)))
        return f"{remove} && {quote('casync', 'gc', f'--store={self._store}', self._index(latest))}"

    @property
    def _store(self) -> Path:
        return self.repository / "store.castr"

    def _index(self, number: int) -> Path:
        return self.repository / f"b{number:03}.caibx"
