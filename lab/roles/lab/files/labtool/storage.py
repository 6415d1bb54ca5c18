# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The storage platform: a btrfs pool in the storage host, its LUN files, and the LUNs in the file servers.

LUN files are attached through the page cache: with checksums btrfs turns direct writes into buffered ones anyway, and
a snapshot of the subvolume flushes the cached data of its files.
"""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import freezes
import hosts
import loops
import processes
from shell import LabError, attempt, run
from spec import MIB, Host, Lab, Volume

POOL = "/srv/pool"
LUNS = f"{POOL}/luns"
SNAPSHOTS = f"{POOL}/snapshots"
# Seconds for the kernel to release a device after its last user is gone.
DETACH_TIMEOUT = 3.0


def present(lab: Lab) -> list[str]:
    """Create the pool and the LUNs, and map each LUN to its server; return the changes."""
    changes = _pool(lab)
    attached = loops.labelled(f"{lab.id}/")
    for host in lab.file_servers:
        for volume in host.volumes:
            changes += _lun_file(lab, volume)
            label = f"{lab.id}/{volume.serial}"
            if label not in attached:
                attached[label] = loops.attach(str(_lun_path(lab, volume)), label)
                changes.append(f"LUN {volume.serial}")
            changes += _map(lab, host, volume.link, attached[label])
            if volume.table:
                changes += _partition(lab, host, volume, attached[label], attached)
    return changes


def thaw(lab: Lab) -> None:
    """Thaw everything of the lab that is frozen, so that its processes can end."""
    freezes.thaw_mounted(set(loops.labelled(f"{lab.id}/").values()))


def absent(lab: Lab) -> list[str]:
    """Detach every loop device of the lab: partitions, then their LUNs, then the pool; return them."""
    attached = loops.labelled(f"{lab.id}/")
    in_order = sorted(attached, key=lambda label: (label.endswith("/pool"), -label.count("/")))
    for label in in_order:
        loops.detach(attached[label])
    # A device in use is detached when its last user ends; a filesystem left frozen would use it forever.
    if not processes.wait_for(lambda: not loops.labelled(f"{lab.id}/"), DETACH_TIMEOUT):
        for number in loops.labelled(f"{lab.id}/").values():
            freezes.thaw_abandoned(loops.node(number))
        if not processes.wait_for(lambda: not loops.labelled(f"{lab.id}/"), DETACH_TIMEOUT):
            left = ", ".join(f"/dev/loop{number}" for number in loops.labelled(f"{lab.id}/").values())
            raise LabError(f"loop devices of the lab are still in use: {left}: end their users, and retry")
    return [f"loop device of {label}" for label in in_order]


def mounted(lab: Lab, host: Host, path: str) -> bool:
    """Return whether something is mounted exactly at a path of a host."""
    return hosts.try_on(lab, host, ["mountpoint", "--quiet", path])


def filesystem(device: str, lab: Lab, host: Host) -> bool:
    """Return whether a device of a host has a filesystem."""
    return hosts.try_on(lab, host, ["blkid", "--probe", device])


def _pool(lab: Lab) -> list[str]:
    changes = []
    image, label, host = lab.folder / "pool.img", f"{lab.id}/pool", lab.storage
    if not image.exists():
        made = image.with_suffix(".new")
        with made.open("wb") as stream:
            stream.truncate(lab.pool_size * MIB)
        run(["mkfs.btrfs", "--quiet", "--label", f"openisb-{lab.id}", str(made)])
        made.rename(image)
        changes.append(f"pool {image}")
    number = loops.labelled(label).get(label)
    if number is None:
        number = loops.attach(str(image), label)
        changes.append("loop device of the pool")
    changes += _node(lab, host, number)
    if not mounted(lab, host, POOL):
        hosts.enter(lab, host, ["mount", "-o", "noatime,discard=async", f"/dev/loop{number}", POOL])
        changes.append(f"mount of {POOL}")
    if not hosts.try_on(lab, host, ["test", "-d", LUNS]):
        hosts.enter(lab, host, ["btrfs", "--quiet", "subvolume", "create", LUNS])
        hosts.enter(lab, host, ["mkdir", "--parents", SNAPSHOTS])
        changes.append(f"subvolume {LUNS}")
    return changes


def _lun_path(lab: Lab, volume: Volume) -> Path:
    return hosts.seen_from_machine(lab, lab.storage, f"{LUNS}/{volume.serial}.lun")


def _lun_file(lab: Lab, volume: Volume) -> list[str]:
    path = _lun_path(lab, volume)
    if path.exists():
        return []
    with path.open("wb") as stream:
        stream.truncate(volume.size * MIB)
    return [f"LUN file {path.name}"]


def _partition(lab: Lab, host: Host, volume: Volume, lun: int, attached: dict[str, int]) -> list[str]:
    """Create the LUN's one partition, and add it to the server's /dev."""
    changes = []
    device = loops.node(lun)
    if attempt(["sfdisk", "--json", device]).returncode:
        run(["sfdisk", "--quiet", "--label", volume.table, device], text="size=+\n")
        changes.append(f"partition table on {volume.serial}")
    label = f"{lab.id}/{volume.serial}/1"
    if label not in attached:
        table = json.loads(run(["sfdisk", "--json", device]))["partitiontable"]
        (part,) = table["partitions"]
        sector = table.get("sectorsize", 512)
        attached[label] = loops.attach(device, label, part["start"] * sector, part["size"] * sector)
        changes.append(f"partition of {volume.serial}")
    return changes + _map(lab, host, volume.device, attached[label])


def _map(lab: Lab, host: Host, place: str, number: int) -> list[str]:
    """Add a LUN or its partition to a server's /dev, with a link that has its serial."""
    changes = _node(lab, host, number)
    link = hosts.seen_from_machine(lab, host, place)
    target = f"../../loop{number}"
    if not link.is_symlink() or os.readlink(link) != target:
        link.unlink(missing_ok=True)
        link.symlink_to(target)
        changes.append(f"{host.name}: {place}")
    return changes


def _node(lab: Lab, host: Host, number: int) -> list[str]:
    path = hosts.seen_from_machine(lab, host, f"/dev/loop{number}")
    if path.exists():
        return []
    os.mknod(path, stat.S_IFBLK | 0o660, os.makedev(loops.MAJOR, number))
    return [f"{host.name}: /dev/loop{number}"]
