# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder that all hosts share as /lab: compiled M routines, checker, stand-ins for MBF, load of light servers."""

from __future__ import annotations

from pathlib import Path

import host_files
import mbf
from shell import run
from spec import Lab


def present(lab: Lab) -> list[str]:
    """Copy and compile what is missing or outdated; return the changes."""
    base = lab.folder / "shared"
    changes = _copied(lab.files / "labcheck", base / "check", "*.py")
    changes += _copied(lab.files / "mbf", base / "mbf", "*")
    (base / "mbf/mbf").chmod(0o755)
    changes += _copied(lab.files / "light", base / "light", "*.py")
    changes += host_files.write(base / "mbf/rings.json", mbf.document(lab))
    routines = _copied(lab.files / "m", base / "m/src", "*.m")
    (base / "m/obj").mkdir(exist_ok=True)
    for source in sorted((base / "m/src").glob("*.m")):
        compiled = base / "m/obj" / f"{source.stem}.o"
        if str(source) in routines or not compiled.exists():
            run([f"{lab.gtm_dist}/mumps", f"-object={compiled}", str(source)], env={"gtm_dist": lab.gtm_dist})
    return [f"file {name}" for name in changes + routines]


def _copied(source: Path, target: Path, pattern: str) -> list[str]:
    target.mkdir(parents=True, exist_ok=True)
    changed = []
    for file in sorted(path for path in source.glob(pattern) if path.is_file()):
        copy = target / file.name
        if not copy.exists() or copy.read_bytes() != file.read_bytes():
            copy.write_bytes(file.read_bytes())
            changed.append(str(copy))
    return changed
