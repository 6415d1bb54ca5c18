# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Starts every program that drivers run, so that it finds itself as one that the login has started.

A holder keeps the login's umask and makes its own files for its owner alone; it takes signals that it must survive in
handlers, which no program inherits, as memory that is locked is not; and what it has open is closed. What would be
inherited is only how much the kernel spares it when memory runs out: a site's command that uses it up must be the first
to go, not the last.
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
    """What this process had of the login before it changed it: ``score``, what was in SCORE; None: it still is."""

    score: bytes | None = None


def protect_from_oom() -> bool:
    """Ask the kernel to end other processes first when memory runs out. Whether it does."""
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
    """Start a program with nothing but ``environment`` in ``folder``; with ``group`` it leads a process group.

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
    """What the child does before it becomes the program; None where that is nothing, as it costs a millisecond."""
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
