# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What went wrong in the lab, told to a person; and commands that fail with their own words."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

# A command of the lab that takes longer hangs: the longest, filling a volume, takes seconds.
TIMEOUT = 120


class LabError(Exception):
    """Something of the lab cannot be made or removed; the text names it, the cause and the way out."""


def run(argv: Sequence[str], *, text: str = "", env: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """Run a command with ``text`` as its input and return its output; raises `LabError` with what it said."""
    done = attempt(argv, text=text, env=env, cwd=cwd)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:] or "no message"
        raise LabError(f"{' '.join(argv)}: ended with exit status {done.returncode}: {said}")
    return done.stdout


def attempt(
    argv: Sequence[str], *, text: str = "", env: Mapping[str, str] | None = None, cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return how it ended; raises `LabError` only where it cannot be started or hangs."""
    try:
        return subprocess.run(
            list(argv), input=text, capture_output=True, text=True, env=env, cwd=cwd, timeout=TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]}: not found: install the packages in lab_packages ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no answer within {TIMEOUT} s") from error
