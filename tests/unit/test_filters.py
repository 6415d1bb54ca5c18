# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters are documented names of functions that are there, and cost nothing before they are used."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.plugin_utils import lazy

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "plugins/filter"
FILES = sorted(path.stem for path in FOLDER.glob("*.py"))
PACKAGE = "ansible_collections.openisb.backup.plugins.filter"


def filters_of(file: str) -> dict[str, Any]:
    return dict(importlib.import_module(f"{PACKAGE}.{file}").FilterModule().filters())


def test_each_is_documented() -> None:
    names = [name for file in FILES for name in filters_of(file)]
    assert sorted(names) == sorted(path.stem for path in FOLDER.glob("*.yml"))


@pytest.mark.parametrize("file", FILES)
def test_the_function_of_each_is_there(file: str) -> None:
    for name, function in filters_of(file).items():
        meant = inspect.getclosurevars(function).nonlocals
        if meant:
            assert callable(getattr(lazy.load(meant["module"]), meant["function"])), name


def test_a_lazy_function_is_the_function() -> None:
    assert lazy.lazy("text.rate")(2_000_000) == lazy.load("text").rate(2_000_000)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        lazy.lazy("text.nothing_like_it")()


def test_none_imports_what_it_does_not_need() -> None:
    """A worker of Ansible that uses one filter imports all files with filters."""
    script = "; ".join(["import sys", *[f"import {PACKAGE}.{file}" for file in FILES], "print(*sys.modules)"])
    environment = {"PYTHONPATH": str(ROOT / "collections")}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert f"{PACKAGE}.run" in done.stdout
    assert [name for name in done.stdout.split() if name.startswith(lazy.MODULE_UTILS)] == []
