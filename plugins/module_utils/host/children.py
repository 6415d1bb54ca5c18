# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts the drivers' programs in the same state as if the login had started them.

A holder keeps the login's umask. It survives signals by handlers, which programs do not inherit; neither do they
inherit locked memory, and its descriptors are closed. Only its OOM score would be inherited, and must be reset: a
site's command that uses up the memory must be the first to be killed, not the last.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
from typing import Any

SCORE = "/proc/self/oom_score_adj"
SPARED = b"-1000"


class Login:
    """The login's settings before this process changed them. ``score``: the content of SCORE; None: unchanged."""

    score: bytes | None = None


def protect_from_oom() -> bool:
    """Ask the kernel to kill other processes first when memory runs out. Returns whether it agreed."""
    try:
        with open(SCORE, "rb") as stream:
            before = stream.read().strip()
        with open(SCORE, "wb", buffering=0) as stream:
            stream.write(SPARED)
    except OSError:
        return False
    Login.score = before if Login.score is None else Login.score
    return True


def start(
    arguments: list[str], environment: dict[str, str], folder: str = "/", group: bool = False, **streams: Any
) -> subprocess.Popen[bytes]:
    """Start a program with only ``environment``, in ``folder``; with ``group`` it leads a process group.

    ``streams`` are as Popen takes them. Raises OSError.
    """
    return subprocess.Popen(
        arguments,
        env=environment,
        cwd=folder,
        close_fds=True,
        preexec_fn=_preparation(group, Login.score),
        **streams,
    )


def _preparation(group: bool, score: bytes | None) -> Any:
    """What the child does before it executes the program; None if nothing, because a hook costs a millisecond."""
    if score is None:
        return os.setpgrp if group else None
    return functools.partial(_prepare, group, score)


def _prepare(group: bool, score: bytes) -> None:
    if group:
        os.setpgrp()
    with contextlib.suppress(OSError):
        descriptor = os.open(SCORE, os.O_WRONLY)
        os.write(descriptor, score)
        os.close(descriptor)
