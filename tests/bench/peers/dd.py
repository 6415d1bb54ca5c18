# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""dd: what copying alone takes."""

from __future__ import annotations

from pathlib import Path

from ..contender import FULL, RESTORE, Backup, Contender, output_of, quote


class Dd(Contender):
    """``dd bs=4M``, holes and zeros copied like everything."""

    name = "dd"
    remark = "no compression, no encryption"
    operations = (FULL, RESTORE)

    def version(self) -> str:
        return output_of("dd", "--version")

    def backup(self, backup: Backup) -> str:
        return quote("dd", f"if={backup.image}", f"of={self.repository / 'image'}", "bs=4M")

    def restore(self, target: Path, latest: int) -> str:
        return quote("dd", f"if={self.repository / 'image'}", f"of={target}", "bs=4M", "conv=notrunc")
