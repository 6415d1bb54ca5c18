# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Benji, from PyPI."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from ..contender import Backup, Contender, output_of, quote


class Benji(Contender):
    """benji with blocks of 1 MiB, BLAKE2b, zstd level 1, AES-256-GCM, SQLite; it takes changed extents as rbd hints."""

    name = "benji"
    remark = "is told the changed extents too; its cleanup spares what was removed in the last hour"

    def version(self) -> str:
        python = self.tools / "benji" / "bin" / "python"
        return "benji " + output_of(python, "-c", "import importlib.metadata as m; print(m.version('benji'))")

    def prepare(self) -> str:
        (self.repository / "blocks").mkdir(parents=True)
        self._config.write_text(json.dumps(self._configuration(), indent=2))  # YAML too
        return f"{self._benji} database-init"

    def backup(self, backup: Backup) -> str:
        options = ["-u", self._version(backup.number)]
        if backup.extents is not None:
            hints = self.folder / "hints.json"
            changed = [{"offset": offset, "length": length, "exists": "true"} for offset, length in backup.extents]
            # An empty list would be taken for none at all: one block is named that did not change.
            hints.write_text(json.dumps(changed or [{"offset": 0, "length": 1 << 20, "exists": "true"}]))
            options += ["-r", str(hints), "-f", self._version(backup.number - 1)]
        return f"{self._benji} backup {quote(*options)} {quote(f'file:{backup.image}')} image"

    def restore(self, target: Path, latest: int) -> str:
        return f"{self._benji} restore --force {self._version(latest)} {quote(f'file:{target}')}"

    def verify(self, latest: int) -> str:
        return f"{self._benji} deep-scrub {self._version(latest)}"

    def prune(self, latest: int) -> str:
        return f"{self._benji} enforce latest1 && {self._benji} cleanup"

    @property
    def _config(self) -> Path:
        return self.folder / "benji.yaml"

    @property
    def _benji(self) -> str:
        return quote(self.tools / "benji" / "bin" / "benji", "-c", self._config, "--log-level", "ERROR")

    @staticmethod
    def _version(number: int) -> str:
        return f"b{number:03}"

    def _configuration(self) -> dict[str, object]:
        return {
            "configurationVersion": "1",
            "databaseEngine": f"sqlite:///{self.repository / 'benji.sqlite'}",
            "defaultStorage": "blocks",
            "blockSize": 1 << 20,
            "hashFunction": "BLAKE2b,digest_bits=256",
            "disallowRemoveWhenYounger": 0,
            "storages": [
                {
                    "name": "blocks",
                    "storageId": 1,
                    "module": "file",
                    "configuration": {
                        "path": str(self.repository / "blocks"),
                        "activeTransforms": ["zstd", "encryption"],
                    },
                }
            ],
            "ios": [{"name": "file", "module": "file"}],
            "transforms": [
                {"name": "zstd", "module": "zstd", "configuration": {"level": 1}},
                {
                    "name": "encryption",
                    "module": "aes_256_gcm",
                    "configuration": {"masterKey": base64.b64encode(b"only a benchmark, 32 bytes long.").decode()},
                },
            ],
        }
