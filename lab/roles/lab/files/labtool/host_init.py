# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs as the first process of a new host, in its own namespaces; builds its root, then becomes `tini`.

A host's root is a tmpfs with the machine's programs mounted read-only and the host's own folders mounted writable.
Nothing else of the machine is mounted in it, so that a host neither keeps a filesystem of the machine busy nor harms
the machine.

Arguments: the host's name, its kind, its folder, the folder to mount at /lab, and a JSON list of further bind mounts
(objects of ``path``, ``source``, ``writable``).
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from pathlib import Path

# The machine's programs; symbolic links stay links.
SYSTEM = ("bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "opt", "etc")
# The package manager's data, which modules need to look up packages.
PACKAGES = ("var/lib/dpkg", "var/lib/apt", "var/cache/apt")
# Folders of the host itself.
OWN = ("root", "srv", "tmp", "var")
# Empty folders that programs expect.
EMPTY = ("home", "media", "mnt", "run", "proc", "sys", "dev")
# How many loop devices a host that may mount images has. Opening a node creates the device.
LOOPS = 64
# Character devices: name to major, minor.
DEVICES = {
    "null": (1, 3),
    "zero": (1, 5),
    "full": (1, 7),
    "random": (1, 8),
    "urandom": (1, 9),
    "tty": (5, 0),
    "fuse": (10, 229),
}
IMAGE_DEVICES = {"loop-control": (10, 237)}


def main() -> None:
    name, kind, folder, shared = sys.argv[1], sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
    binds = json.loads(sys.argv[5])
    run("hostname", name)
    root = folder / "mnt"
    run("mount", "-t", "tmpfs", "-o", "mode=755,size=16m", "lab", str(root))
    show_system(root)
    show_own(root, folder)
    bind(shared, root / "lab", writable=False)
    make_devices(root / "dev")
    # A file server sees its own LUNs and no other device.
    if kind != "file_server":
        make_image_devices(root / "dev")
    for each in binds:
        bind(Path(each["source"]), root / each["path"].lstrip("/"), writable=bool(each.get("writable")))
    enter(root)
    os.execv("/usr/bin/tini", ["tini", "-s", "--", "sleep", "infinity"])


def show_system(root: Path) -> None:
    """Mount the machine's programs and settings read-only, and kernel filesystems of the host's own namespaces."""
    for name in SYSTEM:
        source = Path("/") / name
        if source.is_symlink():
            (root / name).symlink_to(source.readlink())
        elif source.is_dir():
            bind(source, root / name, writable=False)
    for name in EMPTY:
        (root / name).mkdir()
    run("mount", "-t", "proc", "-o", "nosuid,nodev,noexec", "proc", str(root / "proc"))
    run("mount", "-t", "sysfs", "-o", "ro,nosuid,nodev,noexec", "sysfs", str(root / "sys"))
    run("mount", "-t", "tmpfs", "-o", "mode=755,nosuid,nodev", "run", str(root / "run"))
    for name in ("sshd", "lock"):
        (root / "run" / name).mkdir()


def show_own(root: Path, folder: Path) -> None:
    """Mount the host's own folders, and its own files over those of the machine."""
    for name in OWN:
        bind(folder / name, root / name, writable=True)
    for name in PACKAGES:
        if (Path("/") / name).is_dir():
            bind(Path("/") / name, root / name, writable=False)
    for entry in (folder / "etc").iterdir():
        target = root / "etc" / entry.name
        # If the machine does not have the file, there is nothing to cover.
        if target.exists() and not target.is_symlink():
            run("mount", "--bind", str(entry), str(target))


def make_devices(dev: Path) -> None:
    """Create a /dev with the usual nodes, and the host's own terminals and shared memory."""
    run("mount", "-t", "tmpfs", "-o", "mode=755,nosuid", "dev", str(dev))
    for name, numbers in DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR | 0o666, os.makedev(*numbers))
        (dev / name).chmod(0o666)  # regardless of the umask
    for name in ("pts", "shm", "disk"):
        (dev / name).mkdir()
    (dev / "disk" / "by-id").mkdir()
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666,mode=620,gid=5", "devpts", str(dev / "pts"))
    run("mount", "-t", "tmpfs", "-o", "mode=1777,nosuid,nodev", "shm", str(dev / "shm"))
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd"}
    links.update({name: f"/proc/self/fd/{number}" for number, name in enumerate(("stdin", "stdout", "stderr"))})
    for name, target in links.items():
        (dev / name).symlink_to(target)


def make_image_devices(dev: Path) -> None:
    """Create the loop devices that mounting images needs."""
    for name, numbers in IMAGE_DEVICES.items():
        os.mknod(dev / name, stat.S_IFCHR | 0o660, os.makedev(*numbers))
    for number in range(LOOPS):
        os.mknod(dev / f"loop{number}", stat.S_IFBLK | 0o660, os.makedev(7, number))


def bind(source: Path, target: Path, *, writable: bool) -> None:
    """Bind-mount a folder of the machine, including what is mounted below it."""
    target.mkdir(parents=True, exist_ok=True)
    run("mount", "--rbind", str(source), str(target))
    if not writable:
        run("mount", "-o", "remount,bind,ro", str(target))


def enter(root: Path) -> None:
    """Make ``root`` the root of the namespace, and drop the machine's."""
    os.chdir(root)
    run("pivot_root", ".", ".")
    run("umount", "--lazy", ".")
    os.chdir("/")


def run(*argv: str) -> None:
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    main()
