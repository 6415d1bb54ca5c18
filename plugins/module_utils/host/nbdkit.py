# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""When nbdkit, or another program that was started as an orphan, is ready."""

from __future__ import annotations

import socket
from typing import Any, Callable

from . import processes
from .clock import wait_until

POLL = 0.01
GREETING = b"NBDMAGIC"


def is_ready(process: dict[str, Any], ready: Callable[[], bool], timeout: float) -> bool:
    """Wait until ``ready()``. False if ``process`` (processes.identity) ends, or is not ready after ``timeout`` s."""
    ended_or_ready = wait_until(lambda: ready() or not processes.is_running(process), timeout, POLL)
    return ended_or_ready and processes.is_running(process)


def greets(family: int, where: Any) -> bool:
    """Whether nbdkit accepts connections at an address of that family: it sends a greeting on connect."""
    with socket.socket(family) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(where)
            return probe.recv(len(GREETING)) == GREETING
        except OSError:
            return False
