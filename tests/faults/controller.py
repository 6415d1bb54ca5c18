# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A run that is held at a step, hurt, and let go: ansible-playbook as ansible-runner starts it, as AWX does."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import Any

import ansible_runner
from families import children, family
from lab import ROOT

CALLBACKS = Path(__file__).with_name("callback")


class Controller:
    """One run of isb.yml in the folder ``private`` of its own."""

    def __init__(self, private: Path, inventories: list[Path], variables: dict[str, Any], task: str) -> None:
        self.gate = private / "gate"
        self._cancelled = False
        private.mkdir(parents=True)
        self._thread, self._runner = ansible_runner.run_async(
            private_data_dir=str(private),
            project_dir=str(ROOT),
            playbook="isb.yml",
            cmdline=" ".join(f"-i {path}" for path in inventories),
            extravars=variables,
            envvars={
                "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                "ANSIBLE_CALLBACK_PLUGINS": str(CALLBACKS),
                "ANSIBLE_CALLBACKS_ENABLED": "fault_gate",
                "OPENISB_FAULT_TASK": task,
                "OPENISB_FAULT_GATE": str(self.gate),
            },
            cancel_callback=lambda: self._cancelled,
            quiet=True,
        )

    def reached(self) -> bool:
        """Whether the run is held at its task."""
        return self.gate.with_name("gate.reached").exists()

    def open(self) -> None:
        """Let it go on."""
        self.gate.with_name("gate.open").touch()

    def running(self) -> bool:
        """Whether the run goes on."""
        return bool(self._thread.is_alive())

    def wait(self, seconds: float) -> bool:
        """Wait for its end; whether that came."""
        self._thread.join(seconds)
        return not self.running()

    def cancel(self) -> None:
        """As AWX cancels a job."""
        self._cancelled = True

    def signal(self, how: signal.Signals) -> None:
        """Signal ansible-playbook; SIGKILL its workers as well, as when the machine is gone."""
        for pid in self._processes() if how == signal.SIGKILL else self._processes()[:1]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, how)

    def end(self) -> None:
        """End it for good."""
        self.signal(signal.SIGKILL)
        self.wait(30)

    def _processes(self) -> list[int]:
        """ansible-playbook, then its children and theirs."""
        mine = [pid for pid in children(os.getpid()) if str(self.gate.parent) in _environment(pid)]
        return [each for pid in mine for each in family(pid)]

    @property
    def status(self) -> int | None:
        """The exit status; None where there is none."""
        return None if self._runner.rc is None else int(self._runner.rc)

    @property
    def output(self) -> str:
        """All that the run said."""
        with contextlib.suppress(OSError, AttributeError):
            return str(self._runner.stdout.read())
        return ""


def _environment(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
    return ""


def wait_until(condition: Any, seconds: float) -> bool:
    """Whether ``condition`` came true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
