# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bare pipeline: compression and encryption with nothing around them."""

from __future__ import annotations

from pathlib import Path

from ..contender import FULL, RESTORE, Backup, Contender, output_of, quote


class Pipeline(Contender):
    """``zstd -1 -T2 | openssl enc -aes-256-ctr``."""

    name = "zstd_openssl"
    remark = "no deduplication, no authentication, nothing incremental"
    operations = (FULL, RESTORE)
    _cipher = f"openssl enc -aes-256-ctr -K {'ab' * 32} -iv {'cd' * 16}"

    def version(self) -> str:
        return f"{output_of('zstd', '--version').strip('* ')}; {output_of('openssl', 'version')}"

    def backup(self, backup: Backup) -> str:
        return f"zstd -q -1 -T2 -c {quote(backup.image)} | {self._cipher} -out {quote(self.repository / 'image')}"

    def restore(self, target: Path, latest: int) -> str:
        return f"{self._cipher} -d -in {quote(self.repository / 'image')} | zstd -q -d -c 1<>{quote(target)}"
