# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A limited number of slots for work that would otherwise compete; later work waits for a free one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from typing import TextIO

POLL = 0.1


@contextlib.contextmanager
def slot(folder: str, count: int, waiting: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Hold one of ``count`` slots below ``folder`` (0: no limit); ``waiting`` is called once if none is free.

    A slot is a kernel lock, so it is released when its process ends, however it ends.
    """
    if not count:
        yield
        return
    os.makedirs(folder, mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(open(os.path.join(folder, f"{number}.lock"), "a", encoding="ascii"))
            for number in range(count)
        ]
        if not any(map(_lock, files)):
            waiting()
            while not any(map(_lock, files)):
                time.sleep(POLL)
        yield


def _lock(stream: TextIO) -> bool:
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
