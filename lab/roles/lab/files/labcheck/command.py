# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands of the checker, and the error that it raises."""

from __future__ import annotations

import subprocess

# fsck of a large copy takes longest.
TIMEOUT = 3600


class CheckError(Exception):
    """The check itself cannot be done; the text names the thing, the cause and the remedy."""


def attempt(
    argv: list[str], text: str = "", env: dict[str, str] | None = None, timeout: int = TIMEOUT
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its result, with stderr merged into stdout."""
    try:
        return subprocess.run(
            argv,
            input=text,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=env,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise CheckError(f"{argv[0]}: not found on this host: install its package") from error
    except subprocess.TimeoutExpired as error:
        raise CheckError("{}: did not end within {} s".format(" ".join(argv), timeout)) from error


def run(argv: list[str], text: str = "", env: dict[str, str] | None = None) -> str:
    """Run a command that must succeed, and return its output."""
    done = attempt(argv, text, env)
    if done.returncode:
        said = done.stdout.strip()[-1000:]
        raise CheckError("{}: ended with exit status {}: {}".format(" ".join(argv), done.returncode, said))
    return done.stdout
