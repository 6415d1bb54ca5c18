# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's own programs, loaded from the role."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

FILES = Path(__file__).resolve().parents[2] / "lab/roles/lab/files"


def load_programs(folder: str, *names: str) -> dict[str, ModuleType]:
    """Modules of a program in the role's files, which import each other by their bare names."""
    sys.path.insert(0, str(FILES / folder))
    try:
        return {name: importlib.import_module(name) for name in names}
    finally:
        sys.path.pop(0)


@pytest.fixture(scope="session")
def cross_check() -> ModuleType:
    """The rules of the checker."""
    return load_programs("labcheck", "cross_check")["cross_check"]


@pytest.fixture(scope="session")
def labtool() -> dict[str, ModuleType]:
    """The modules of the program that makes the lab, by name."""
    names = ("spec", "shell", "processes", "loops", "network", "host_files", "hosts", "load")
    return load_programs("labtool", *names)
