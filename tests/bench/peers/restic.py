# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""restic, from Debian."""

from __future__ import annotations

from pathlib import Path

from ..contender import PASSPHRASE, Backup, Contender, output_of, quote


class Restic(Contender):
    """restic with its defaults: content-defined chunks, zstd, AES-256-CTR with Poly1305."""

    name = "restic"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "RESTIC_REPOSITORY": str(self.repository),
            "RESTIC_PASSWORD": PASSPHRASE,
            "RESTIC_CACHE_DIR": str(self.folder / "cache"),
        }

    def version(self) -> str:
        return output_of("restic", "version")

    def prepare(self) -> str:
        return "restic -q init --repository-version 2"

    def backup(self, backup: Backup) -> str:
        return f"restic -q backup --stdin --stdin-filename image < {quote(backup.image)}"

    def restore(self, target: Path, latest: int) -> str:
        return f"restic -q dump latest /image 1<>{quote(target)}"

    def verify(self, latest: int) -> str:
        return "restic -q check --read-data"

    def prune(self, latest: int) -> str:
        return "restic -q forget --keep-last 1 --prune"
