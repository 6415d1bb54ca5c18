# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How long servers were frozen: by the holders' own records, and by writes that had to wait."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

from .machine import Machine

INTERVAL = 0.01  # seconds
RUN_DIR = "/run/openisb"
LIVE = ("freezing", "frozen", "thawing")


class Server(threading.Thread):
    """Watches one server: its records of holds, read again and again, and a write to its volume that must not wait."""

    def __init__(self, machine: Machine, name: str) -> None:
        super().__init__(daemon=True)
        self.run_dir = machine.path(name, RUN_DIR)
        self.volume = machine.path(name, "/srv/m/.observer")
        self.longest_write = 0.0
        self.holds: dict[str, dict[str, Any]] = {}
        self._ending = threading.Event()
        self._writer = threading.Thread(target=self._write, daemon=True)

    def run(self) -> None:
        self._writer.start()
        while not self._ending.wait(INTERVAL):
            self._look()

    def end(self) -> None:
        """Stop watching."""
        self._ending.set()
        self.join()
        self._writer.join(60)

    def _look(self) -> None:
        seen = set()
        for path in self.run_dir.glob("hold-*.json"):
            with contextlib.suppress(OSError, ValueError):
                status = json.loads(path.read_text())["status"]
                seen.add(path.stem)
                self._remember(path.stem, status)
        for run_id in set(self.holds) - seen:
            self._ended(self.holds[run_id], "gone")

    def _remember(self, run_id: str, status: dict[str, Any]) -> None:
        hold = self.holds.setdefault(run_id, {"begun": None, "ended": None})
        hold["status"] = status
        if status["state"] in LIVE and hold["begun"] is None:
            hold["begun"] = time.monotonic()
        elif status["state"] not in LIVE:
            self._ended(hold, status["state"])

    @staticmethod
    def _ended(hold: dict[str, Any], state: str) -> None:
        if hold["ended"] is None and hold["begun"] is not None:
            hold["ended"] = time.monotonic()
            hold["how"] = state

    def _write(self) -> None:
        """One small write after the other, each on the disk: as long as the server is frozen, it does not return."""
        descriptor = os.open(self.volume, os.O_WRONLY | os.O_CREAT, 0o600)
        try:
            while not self._ending.wait(INTERVAL):
                begun = time.monotonic()
                os.pwrite(descriptor, b"x" * 512, 0)
                os.fdatasync(descriptor)
                self.longest_write = max(self.longest_write, time.monotonic() - begun)
        finally:
            os.close(descriptor)

    def frozen_for(self) -> float:
        """Seconds that the longest hold was frozen: by the holder's own word, and where that is missing by ours."""
        longest = 0.0
        for hold in self.holds.values():
            told = hold["status"].get("window_ms")
            if told is not None:
                longest = max(longest, told / 1000)
            elif hold["begun"] is not None:
                longest = max(longest, (hold["ended"] or time.monotonic()) - hold["begun"])
        return longest

    def frozen_now(self) -> bool:
        """Whether a hold has begun and not ended."""
        return any(hold["begun"] is not None and hold["ended"] is None for hold in self.holds.values())

    def state(self, run_id: str) -> dict[str, Any]:
        """The last status of a run's hold."""
        return self.holds.get(f"hold-{run_id}", {}).get("status", {})


class Observer:
    """Watches all servers, from `with` to its end."""

    def __init__(self, machine: Machine) -> None:
        self.servers = {name: Server(machine, name) for name in machine.servers}

    def __enter__(self) -> Observer:
        for server in self.servers.values():
            Path(server.run_dir).mkdir(exist_ok=True)
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers.values():
            server.end()

    def wait_until_thawed(self, seconds: float) -> None:
        """Wait until no server is frozen; whether that came is for the figures to tell."""
        deadline = time.monotonic() + seconds
        while any(server.frozen_now() for server in self.servers.values()) and time.monotonic() < deadline:
            time.sleep(INTERVAL)

    def frozen_for(self) -> dict[str, float]:
        """Seconds by server."""
        return {name: round(server.frozen_for(), 2) for name, server in self.servers.items()}

    def longest_writes(self) -> dict[str, float]:
        """Seconds that a write to the volume waited at most, by server."""
        return {name: round(server.longest_write, 2) for name, server in self.servers.items()}
