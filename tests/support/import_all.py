# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run by the oldest Python of a managed host, as ``import_all.py FOLDER MODULE...``: imports each module below
FOLDER by itself, and prints a line for each that cannot be imported.
"""

from __future__ import annotations

import importlib
import sys
import traceback


def problem(name: str) -> str:
    """Why a module cannot be imported, and where; empty where it can."""
    try:
        importlib.import_module(name)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{name}: {type(error).__name__}: {error} ({place.filename}:{place.lineno})"
    return ""


def main() -> None:
    sys.dont_write_bytecode = True
    sys.path.insert(0, sys.argv[1])
    for found in filter(None, map(problem, sys.argv[2:])):
        print(found)


if __name__ == "__main__":
    main()
