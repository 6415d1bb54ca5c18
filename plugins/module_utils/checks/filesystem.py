# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks an unmounted filesystem with its own checker, read-only.

The checker reads untrusted content, so it runs without privileges; it gets the device through a node of the check's
own. Only to replay a log must the kernel itself mount it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import Any, Iterator, NamedTuple

from ..host.errors import OptionError
from ..host.mounts import current
from ..host.options import Option
from ..host.users import environment_of
from .base import Check, Surroundings, first_line, telling
from .bench import Bench, Finished
from .errors import CheckFailed
from .isolation import MS_NOEXEC, MS_NOSUID, mount

ENVIRONMENT = environment_of(None)
NEEDS_RECOVERY = "needs_recovery"
SAFE = "nosuid,nodev,noexec"
ADDED = {"xfs": ",nouuid", "ext3": ",errors=remount-ro", "ext4": ",errors=remount-ro"}
"""A copy has its original's UUID, and may request a kernel panic on damage."""


class Checker(NamedTuple):
    """The checker of a filesystem type. ``sound``: beginnings of lines that report no damage."""

    program: str
    package: str
    arguments: tuple[str, ...]
    sound: tuple[str, ...]


XFS_SOUND = ("- ", "Phase ", "No modify flag", "Cannot get host", "Repair may fail", "the image and the host")
# Without privileges, btrfs cannot determine whether the device is mounted if any loop device is: --force continues.
BTRFS_SOUND = ("Opening filesystem", "Checking filesystem", "UUID:", "[", "WARNING: cannot check mount status")
NTFS_SOUND = ("Mounting volume... OK", "Processing of $MFT", "Checking the alternate", "NTFS volume version")
EXT = Checker("e2fsck", "e2fsprogs", ("-f", "-n"), ("e2fsck ", "Pass ", "Warning!"))
CHECKERS = {
    "ext2": EXT,
    "ext3": EXT,
    "ext4": EXT,
    "xfs": Checker("xfs_repair", "xfsprogs", ("-n",), XFS_SOUND),
    "btrfs": Checker("btrfs", "btrfs-progs", ("check", "--readonly", "--force"), BTRFS_SOUND),
    "ntfs": Checker("ntfsfix", "ntfs-3g", ("-n",), NTFS_SOUND),
}


class FilesystemCheck(Check):
    """Pending logs are replayed first, by a mount: the checker would report what the replay repairs as damage.

    A frozen xfs always leaves a record in its log; an ext4 needs recovery only if it was not frozen.
    """

    name = "filesystem"
    label = "Filesystem"
    proves = True
    confined = True
    options = {
        "volume": Option("str", "The volume."),
        "device": Option("path", "The device, or a file, on this host; instead of 'volume'."),
        "type": Option("str", "The filesystem's type, as blkid names it. Detected by default."),
        "replay": Option("bool", "Whether the log may be replayed: the device is an overlay.", default=True),
    }

    def __init__(self, values: dict[str, Any], surroundings: Surroundings) -> None:
        super().__init__(values, surroundings)
        if (values["volume"] is None) == (values["device"] is None):
            raise OptionError("check filesystem needs either 'volume' or 'device'")
        self._type = values["type"] or ""

    def subject(self) -> str:
        return f"{self.values['volume'] or self.values['device']} {self._type}".strip()

    def run(self, bench: Bench) -> str:
        called = self._device()
        _refuse_used(called)
        bench.confined = bench.own_mounts  # without own mounts there is no device node; the site has accepted that
        with _as_device(called, bench) as device:
            return self._check(called, device, _lent(device, bench), bench)

    def _check(self, called: str, device: str, node: str, bench: Bench) -> str:
        """``node``: the device node for unprivileged programs."""
        self._type = self._type or _type(called, node, bench)
        checker = CHECKERS.get(self._type)
        if checker is None:
            raise CheckFailed(f"{called}: there is no checker for the filesystem type {self._type} on Linux")
        program = bench.need(checker.program, checker.package)
        replayed = self._replay(called, device, node, bench)
        finished = bench.call([program, *checker.arguments, node], ENVIRONMENT)
        if finished.rc != 0:
            raise CheckFailed(_outcome(checker, finished))
        if self._type == "ntfs":
            _check_clusters(node, bench)
        return f"{self._type} is clean{', after its log was replayed' if replayed else ''}"

    def _device(self) -> str:
        volume = self.values["volume"]
        if volume is None:
            return str(self.values["device"])
        if volume not in self.surroundings.devices:
            known = ", ".join(sorted(self.surroundings.devices)) or "none"
            raise CheckFailed(f"volume {volume} has no device here (known: {known}): it was not brought up")
        return self.surroundings.devices[volume]

    def _replay(self, called: str, device: str, node: str, bench: Bench) -> bool:
        """Replay the log if needed. Returns whether it was replayed. Raises CheckFailed if that fails."""
        if not self.values["replay"] or not self._has_log(node, bench):
            return False
        folder = bench.folder("mnt")
        options = f"{SAFE},rw{ADDED.get(self._type, '')}"
        mounted = bench.call(["mount", "-t", self._type, "-o", options, device, folder], ENVIRONMENT, with_rights=True)
        if mounted.rc != 0:
            raise CheckFailed(f"{called} cannot be mounted to replay its log: {telling(mounted.output, 'mount:')}")
        unmounted = bench.call(["umount", folder], ENVIRONMENT, with_rights=True)
        if unmounted.rc != 0:
            raise CheckFailed(f"{called} cannot be unmounted after its log was replayed: {telling(unmounted.output)}")
        return True

    def _has_log(self, node: str, bench: Bench) -> bool:
        if self._type == "xfs":
            return True
        if self._type not in ("ext3", "ext4"):
            return False
        return NEEDS_RECOVERY in bench.call([bench.need("dumpe2fs", "e2fsprogs"), "-h", node], ENVIRONMENT).output


@contextlib.contextmanager
def _as_device(path: str, bench: Bench) -> Iterator[str]:
    """The device; for a file, a loop device, which goes away with this process in any case."""
    if bench.user is None or _is_block_device(path):
        yield path
        return
    read_only = [] if os.access(path, os.W_OK) else ["--read-only"]
    made = bench.call(["losetup", "--find", "--show", *read_only, path], ENVIRONMENT, with_rights=True)
    if made.rc != 0:
        raise CheckFailed(f"{path} cannot be attached to a loop device: {telling(made.output, 'losetup:')}")
    device = made.output
    descriptor = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
    try:
        bench.call(["losetup", "--detach", device], ENVIRONMENT, with_rights=True)  # effective once it is closed
        yield device
    finally:
        os.close(descriptor)


def _lent(device: str, bench: Bench) -> str:
    """A device node that the check's user may read. Raises CheckFailed."""
    if bench.user is None or not bench.own_mounts:
        return device
    folder = bench.folder("dev")
    mount("tmpfs", folder, MS_NOSUID | MS_NOEXEC, "tmpfs", "mode=0711")
    node = os.path.join(folder, "volume")
    try:
        os.mknod(node, stat.S_IFBLK | 0o400, os.stat(device).st_rdev)
    except OSError as error:
        raise CheckFailed(
            f"{device} cannot be given to an unprivileged program, because this host cannot create a node for it "
            f"({error.strerror}): allow mknod, or use a host that is not a container"
        ) from error
    os.chown(node, *bench.user)
    return node


def _is_block_device(path: str) -> bool:
    return stat.S_ISBLK(os.stat(path).st_mode)


def _refuse_used(device: str) -> None:
    """Raise CheckFailed if the device is mounted: it could change while the checker reads it."""
    try:
        exclusive = os.O_EXCL if _is_block_device(device) else 0
        os.close(os.open(device, os.O_RDONLY | os.O_CLOEXEC | exclusive))
    except FileNotFoundError as error:
        raise CheckFailed(f"there is no {device} on this host: the volume was not brought up") from error
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise CheckFailed(f"{device} cannot be read: {error.strerror}") from error
        mounts = ", ".join(_mounted_at(device)) or "something that is not a mount here"
        raise CheckFailed(f"{device} is in use by {mounts}: check it before it is mounted") from error


def _mounted_at(device: str) -> list[str]:
    real = os.path.realpath(device)
    return [mount.point for mount in current() if os.path.realpath(mount.source) == real]


def _type(called: str, node: str, bench: Bench) -> str:
    probe = ["blkid", "--probe", "--match-tag", "TYPE", "--output", "value", node]
    found = bench.call(probe, ENVIRONMENT).output.strip()
    if not found:
        raise CheckFailed(f"there is no filesystem on {called}, or its beginning is damaged")
    return found


def _outcome(checker: Checker, finished: Finished) -> str:
    lines = finished.output.split("\n")
    said = "\n".join(line for line in lines if not line.strip().startswith(checker.sound)) or finished.output
    return f"{checker.program} found damage (exit status {finished.rc}): {first_line(said)}"


def _check_clusters(device: str, bench: Bench) -> None:
    """Read the whole MFT and count its clusters, which ntfsfix does not do. Raises CheckFailed."""
    program = bench.need("ntfsresize", "ntfs-3g")
    finished = bench.call([program, "--info", "--force", "--no-progress-bar", device], ENVIRONMENT)
    counted = "Collecting resizing constraints" in finished.output or "Space in use" in finished.output
    if finished.rc != 0 and not counted:  # a full volume cannot shrink; that is not damage
        trouble = ("accounting failed", "Corrupt", "corrupt", "ERROR", "failed")
        raise CheckFailed(f"ntfsresize found damage (exit status {finished.rc}): {telling(finished.output, *trouble)}")
