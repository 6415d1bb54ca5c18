# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One more filesystem on a server, which is frozen with the others, on storage that stops answering or is lost."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess

from stuck_storage import StuckStorage

from .machine import Machine

SERVER, MOUNT, DEVICE = "fs1", "/srv/stuck", "/dev/stuck"
SIZE = 32  # MiB
PATIENCE = 20  # seconds until it is thawed once its storage answers again


class StuckMount:
    """It is there from now until ``end``."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._folder = machine.lab.folder / "stuck"
        shutil.rmtree(self._folder, ignore_errors=True)
        self.storage = StuckStorage(self._folder, SIZE)
        subprocess.run(["mkfs.ext4", "-q", str(self.storage.image)], check=True, stdout=subprocess.DEVNULL)
        attach = ["losetup", "--find", "--show", str(self.storage.image)]
        loop = subprocess.run(attach, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
        number = os.stat(loop).st_rdev
        machine.run(
            SERVER,
            f"rm -f {DEVICE} && mknod {DEVICE} b {os.major(number)} {os.minor(number)} && mkdir -p {MOUNT} && "
            f"mount -t ext4 {DEVICE} {MOUNT} && touch {MOUNT}/old && sync -f {MOUNT}",
        )
        subprocess.run(["losetup", "--detach", loop], check=True)  # once it is unmounted
        self._writer: subprocess.Popen[bytes] | None = None

    def write(self) -> None:
        """Begin a write that has to reach the storage."""
        path = self._machine.path(SERVER, f"{MOUNT}/new")
        self._writer = subprocess.Popen(["sh", "-c", f"echo x >{path} && sync {path}"], stderr=subprocess.DEVNULL)

    def end(self) -> None:
        """Have the storage answer again, wait until nothing is frozen, and take it all away."""
        self.storage.go_on()
        probe = ["touch", str(self._machine.path(SERVER, f"{MOUNT}/probe"))]
        touch = subprocess.Popen(probe, stderr=subprocess.DEVNULL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            touch.wait(PATIENCE)
        assert touch.returncode is not None, f"{MOUNT} is frozen {PATIENCE} s after its storage answers again"
        if self._writer is not None:
            self._writer.wait(PATIENCE)
        self._machine.run(SERVER, f"umount --lazy {MOUNT} && rmdir {MOUNT} && rm {DEVICE}")
        self.storage.close()
        shutil.rmtree(self._folder)
