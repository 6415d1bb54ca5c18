# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BorgBackup, from PyPI."""

from __future__ import annotations

from pathlib import Path

from ..contender import PASSPHRASE, Backup, Contender, output_of, quote


class Borg(Contender):
    """borg as its manual advises for images: fixed chunks of 1 MiB; zstd level 1, keyed BLAKE2b and AES-256-CTR."""

    name = "borg"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "BORG_REPO": str(self.repository),
            "BORG_PASSPHRASE": PASSPHRASE,
            "BORG_BASE_DIR": str(self.folder / "base"),
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    @property
    def _borg(self) -> Path:
        return self.tools / "borg" / "bin" / "borg"

    def version(self) -> str:
        return output_of(self._borg, "--version")

    def prepare(self) -> str:
        return quote(self._borg, "init", "-e", "repokey-blake2")

    def backup(self, backup: Backup) -> str:
        options = "-C zstd,1 --read-special --files-cache disabled --chunker-params fixed,1048576"
        return f"{quote(self._borg)} create {options} ::b{backup.number:03} {quote(backup.image)}"

    def restore(self, target: Path, latest: int) -> str:
        borg = quote(self._borg)
        return f"{borg} extract --stdout ::b{latest:03} 1<>{quote(target)}"

    def verify(self, latest: int) -> str:
        return quote(self._borg, "check", "--verify-data")

    def prune(self, latest: int) -> str:
        borg = quote(self._borg)
        return f"{borg} prune --keep-last 1 && {borg} compact"
