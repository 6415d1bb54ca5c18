# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts whose freeze window is measured: the lab itself, and the lab with many light servers."""

from __future__ import annotations

import typing as t
from pathlib import Path

from .scale_lab import ROOT, LightLab, run


class Servers(t.Protocol):
    """Servers that can be started, measured and removed again."""

    name: str
    folder: Path
    inventories: list[Path]

    def start(self) -> None: ...

    def stop(self) -> None: ...


class RealLab:
    """The lab as it is: three servers with databases under load, ext4 and xfs, five LUNs."""

    name = "3"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventories = [ROOT / "inventories/lab"]

    def start(self) -> None:
        self._play("present")

    def stop(self) -> None:
        self._play("absent")

    def _play(self, state: str) -> None:
        options = ["-e", f"lab_dir={self.folder}", "-e", f"lab_state={state}", "-e", "lab_profile=namespaces"]
        run(["ansible-playbook", str(ROOT / "lab/lab.yml"), *options], self.folder)


class LightServers(LightLab):
    """``count`` servers, each a host with its own sshd and two small ext4 LUNs; no databases and no load."""

    def __init__(self, folder: Path, count: int) -> None:
        super().__init__(folder, count, load="stopped")
        self.name = str(count)
