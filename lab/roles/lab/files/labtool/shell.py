# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's error type, and commands whose errors include their own output."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence

# A command that takes longer is hung: the longest, filling a volume, takes seconds.
TIMEOUT = 120


class LabError(Exception):
    """A part of the lab cannot be created or removed; the text names it, the cause and the remedy."""


def run(argv: Sequence[str], *, text: str = "", env: Mapping[str, str] | None = None, cwd: str | None = None) -> str:
    """Run a command with ``text`` as its input and return its output; raise `LabError` with its message if it fails."""
    done = attempt(argv, text=text, env=env, cwd=cwd)
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip())[-2000:] or "no message"
        raise LabError(f"{' '.join(argv)}: ended with exit status {done.returncode}: {said}")
    return done.stdout


def attempt(
    argv: Sequence[str], *, text: str = "", env: Mapping[str, str] | None = None, cwd: str | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its result; raise `LabError` only if it cannot be started or hangs."""
    try:
        return subprocess.run(
            list(argv), input=text, capture_output=True, text=True, env=env, cwd=cwd, timeout=TIMEOUT, check=False
        )
    except FileNotFoundError as error:
        raise LabError(f"{argv[0]}: not found: install the packages in lab_packages ({error})") from error
    except subprocess.TimeoutExpired as error:
        raise LabError(f"{' '.join(argv)}: no answer within {TIMEOUT} s") from error
