# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A LUN as a DR host has it: nbdkit with what is written kept apart, nbdfuse, a loop device."""

from __future__ import annotations

import contextlib
import os
import subprocess
import typing as t
from pathlib import Path

from .instant_serve import Address, wait_for

#: How far the kernel reads ahead on the loop device, in sectors of 512 bytes.
READAHEAD_SECTORS = 8192
#: The largest request of the loop device: FUSE takes no larger ones, and would cut off a small rest of each.
REQUEST_KIB = 1024


@contextlib.contextmanager
def attached(address: Address, work: Path) -> t.Iterator[str]:
    """The loop device of what is served; what is written to it stays in a file without a name below ``work``."""
    with overlay(address, work) as socket, mounted_file(socket, work) as file:
        device = output_of("losetup", "--find", "--show", "--direct-io=on", file)
        try:
            run("blockdev", "--setra", READAHEAD_SECTORS, device)
            Path("/sys/block", Path(device).name, "queue/max_sectors_kb").write_text(str(REQUEST_KIB))
            yield device
        finally:
            run("losetup", "--detach", device)


@contextlib.contextmanager
def overlay(address: Address, work: Path) -> t.Iterator[Path]:
    """The unix socket of an nbdkit over what is served, that can be written."""
    socket = work / "cow"
    process = subprocess.Popen(
        ["nbdkit", "--foreground", "--exit-with-parent", "--unix", socket, "--filter=cow", "nbd"]
        + [f"uri={address.uri}", f"tls-psk={address.psk}"],
        env={**os.environ, "TMPDIR": str(work)},
    )
    try:
        wait_for(lambda: socket.is_socket() or process.poll() is not None, "the overlay's socket")
        yield socket
    finally:
        process.terminate()
        process.wait()
        socket.unlink(missing_ok=True)


@contextlib.contextmanager
def mounted_file(socket: Path, work: Path) -> t.Iterator[Path]:
    """The file that nbdfuse shows of what a socket serves."""
    folder = work / "fuse"
    folder.mkdir()
    file = folder / "lun"
    process = subprocess.Popen(["nbdfuse", file, f"nbd+unix:///?socket={socket}"])
    try:
        wait_for(lambda: file.exists() or process.poll() is not None, "nbdfuse's file")
        yield file
    finally:
        # The kernel lets go of the loop device a moment after it was told to.
        wait_for(lambda: subprocess.run(["umount", folder], check=False).returncode == 0, "the end of nbdfuse")
        process.wait()
        folder.rmdir()


@contextlib.contextmanager
def mounted(device: str, folder: Path, options: str) -> t.Iterator[Path]:
    """A filesystem of a device."""
    folder.mkdir(exist_ok=True)
    run("mount", "-o", options, device, folder)
    try:
        yield folder
    finally:
        run("umount", folder)


def run(*command: object) -> None:
    """Run a command.  Raises CalledProcessError."""
    subprocess.run([str(word) for word in command], check=True)


def output_of(*command: object) -> str:
    """What a command prints."""
    return subprocess.run([str(word) for word in command], check=True, capture_output=True, text=True).stdout.strip()
