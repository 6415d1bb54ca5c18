# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters are documented names of functions that are there, and cost nothing before they are used."""

from __future__ import annotations

import importlib
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.openisb.backup.plugins.filter import control
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


@pytest.mark.parametrize(("name", "known"), [("facts", control.FACTS), ("text", control.TEXTS)])
def test_each_function_is_documented_and_there(name: str, known: dict[str, str]) -> None:
    told = yaml.safe_load((FOLDER / f"{name}.yml").read_text())["DOCUMENTATION"]["options"]["name"]["description"]
    assert re.findall(r"^V\((\w+)\)", "\n".join(told), re.MULTILINE) == sorted(known)
    for place in known.values():
        module, _dot, function = place.rpartition(".")
        assert callable(getattr(lazy.load(module), function)), place


def test_every_function_is_used() -> None:
    texts = [path.read_text() for folder in ("roles", "playbooks") for path in (ROOT / folder).rglob("*.yml")]
    used = {pair for text in texts for pair in re.findall(r"openisb\.backup\.(facts|text)\('(\w+)'", text)}
    assert used == {("facts", name) for name in control.FACTS} | {("text", name) for name in control.TEXTS}


def test_a_function_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(AnsibleFilterError, match="there is no 'runs': known are catalog, dead_runs"):
        control.text([], "runs")


@pytest.mark.parametrize("file", FILES)
def test_the_function_of_each_is_there(file: str) -> None:
    for name, function in filters_of(file).items():
        meant = inspect.getclosurevars(function).nonlocals
        if meant:
            assert callable(getattr(lazy.load(meant["module"]), meant["function"])), name


def test_a_lazy_function_is_the_function() -> None:
    assert lazy.lazy("control.text.rate")(2_000_000) == lazy.load("control.text").rate(2_000_000)
    with pytest.raises(AttributeError, match="nothing_like_it"):
        lazy.lazy("control.text.nothing_like_it")()


def test_none_imports_what_it_does_not_need() -> None:
    """A worker of Ansible that uses one filter imports all files with filters."""
    script = "; ".join(["import sys", *[f"import {PACKAGE}.{file}" for file in FILES], "print(*sys.modules)"])
    environment = {"PYTHONPATH": str(ROOT / "collections")}
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, env=environment)
    assert f"{PACKAGE}.run" in done.stdout
    assert [name for name in done.stdout.split() if name.startswith(lazy.MODULE_UTILS)] == []
