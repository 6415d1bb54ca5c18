# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Prepare a HOME for ansible-test, so that its environments can be made wherever pip itself works.

Two things of ansible-test stand in the way: it downloads a script of its own to install pip (get_pip.py stands in), and
it passes no PIP_* variables on (written here to HOME's pip.conf instead).

    python prepare_home.py HOME
"""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from ansible_test._internal.python_requirements import get_venv_packages


def pip_settings() -> dict[str, str]:
    """What pip goes by here, whether it comes from its files or from PIP_* variables (which win)."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], check=True, capture_output=True, text=True
    ).stdout.splitlines()
    settings: dict[str, str] = {}
    for wanted in ("global.", "install.", ":env:."):
        for line in listed:
            name = line.removeprefix(wanted).split("=")[0]
            if line.startswith(wanted) and name not in ("quiet", "verbose"):
                value = line.removeprefix(f"{wanted}{name}=")
                settings[name] = ast.literal_eval(value)
    return settings


def write_pip_conf(path: Path) -> None:
    """Write the settings for their reader alone: an index address may hold a password."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write("[global]\nquiet = 1\n")
        for name, value in pip_settings().items():
            file.write(f"{name} = {' '.join(value.split())}\n")


def place_get_pip(cache: Path) -> None:
    """Put get_pip.py where ansible-test looks for what it has downloaded before."""
    cache.mkdir(parents=True, exist_ok=True)
    version = get_venv_packages(SimpleNamespace(version=""))["pip"]
    shutil.copy(Path(__file__).with_name("get_pip.py"), cache / f"get_pip_{version.replace('.', '_')}.py")


def main() -> None:
    """Prepare the HOME named on the command line."""
    home = Path(sys.argv[1])
    write_pip_conf(home / ".config/pip/pip.conf")
    place_get_pip(home / ".ansible/test/cache")


if __name__ == "__main__":
    main()
