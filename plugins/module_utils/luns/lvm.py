# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume groups on a LUN, imported under our own names: the host may have the original, or another copy.

LVM is restricted to the LUN, so that it neither sees nor touches the host's other devices.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any, NamedTuple

from ..host.plain import plain
from . import commands
from .errors import LunError

TYPE = "LVM2_member"
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*")
"""LVM's valid names. Untrusted names of a copy become arguments and paths here, so they are validated again."""


class Group(NamedTuple):
    """A volume group in the copy. ``system``: the host that owns it; ``lock``: its lock manager type."""

    name: str
    system: str
    lock: str


def group_of(device: str, timeout: float) -> str:
    """The name, in the copy, of the volume group of a physical volume; empty if it is in none."""
    group = _group(device, timeout)
    return group.name if group else ""


def _group(device: str, timeout: float) -> Group | None:
    """The volume group on a device. LVM must be asked explicitly for foreign and shared groups."""
    words = ["pvs", *_settings([device]), "--foreign", "--shared", "-o", "vg_name,vg_systemid,vg_lock_type", device]
    found = _report(words, timeout)
    if not found or not found[0]["vg_name"]:
        return None
    system, lock = found[0]["vg_systemid"], found[0]["vg_lock_type"]
    for name in filter(None, (system, lock)):
        _checked(name, device)
    return Group(_checked(found[0]["vg_name"], device), system, "" if lock == "none" else lock)


def import_group(device: str, name: str, timeout: float) -> None:
    """Give the volume group on a device a new name and new UUIDs, and activate it."""
    take_over(device, name, timeout)
    settings = _settings([device], name=name)
    commands.must(["vgchange", *settings, "-ay", name], timeout)
    if not _has_udev():
        commands.must(["vgmknodes", *settings, name], timeout)


def take_over(device: str, name: str, timeout: float) -> None:
    """Make the volume group on a device this host's own, with a new name and new UUIDs."""
    group = _group(device, timeout)
    if group is None:
        raise LunError(f"{device} no longer belongs to a volume group: its source has changed meanwhile")
    # Only its owner can write a group, and an import makes this host its owner.
    settings = _settings([device], owner=group.system)
    # A host with udev may already have activated it, under its original name.
    commands.run(["vgchange", *settings, "-an", group.name], timeout)
    if group.lock:
        _unshare(settings, group, timeout)
    done = commands.run(["vgimportclone", *settings, "--basevgname", name, device], timeout)
    if done.status:
        raise LunError(
            f"the volume group on {device} cannot be imported: {commands.told(done)}. The whole group must be on "
            "one LUN, and the LUN must be writable (overlay)"
        )
    if group.system:
        # The next host that uses the copy is another one.
        commands.must(["vgchange", *settings, "--yes", "--systemid", "", name], timeout)


def _unshare(settings: list[str], group: Group, timeout: float) -> None:
    """Remove the need for a lock manager from the copy of a shared group: a DR host does not run one."""
    commands.must(["vgchange", *settings, "--yes", "--lock-type", "none", "--lock-opt", "force", group.name], timeout)


def volumes(device: str, name: str, timeout: float) -> list[dict[str, Any]]:
    """The active logical volumes of an imported group: name, device and size."""
    found = _report(
        ["lvs", *_settings([device]), "--units", "b", "--nosuffix", "-o", "lv_name,lv_size,lv_active", name], timeout
    )
    active = [(_checked(row["lv_name"], device), int(row["lv_size"])) for row in found if row["lv_active"] == "active"]
    return [{"name": volume, "device": f"/dev/{name}/{volume}", "size": size} for volume, size in active]


def _checked(name: str, device: str) -> str:
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise LunError(f"LVM on {device} has the invalid name '{plain(name)}', which LVM never creates: do not use it")
    return name


def deactivate(devices: list[str], name: str, timeout: float) -> None:
    """Deactivate an imported group. Idempotent."""
    if not is_active(name):
        return
    commands.must(["vgchange", *_settings(devices), "-an", name], timeout)


def is_active(name: str) -> bool:
    """Whether a volume of the group is active in the kernel."""
    return bool(mapped(name))


def mapped(name: str) -> list[str]:
    """The kernel's names (dm-0) of the volumes of a group."""
    found = []
    for entry in sorted(os.listdir("/sys/block")):
        path = f"/sys/block/{entry}/dm/name"
        if os.path.exists(path):
            with open(path, "rb") as stream:
                # device-mapper doubles dashes in both names; our group names have none.
                if stream.read().startswith(name.encode() + b"-"):
                    found.append(entry)
    return found


def _settings(devices: list[str], owner: str | None = None, name: str = "") -> list[str]:
    """LVM settings for one command: only these devices, listed or not, and no udev if there is none.

    No lock manager is used, even if the host has one for its own groups. ``owner``: the system id as which the command
    runs; empty: without an id. ``name``: a group to activate regardless of the host's volume_list.
    """
    accepted = [f'"a|^{re.escape(device)}$|"' for device in devices]
    only = "[{}]".format(",".join([*accepted, '"r|.*|"']))
    words = f"devices {{ filter={only} global_filter={only} use_devicesfile=0 obtain_device_list_from_udev=0 }}"
    words += " backup { backup=0 archive=0 }"  # this host keeps no metadata backups of copies
    source = "" if owner is None else f' system_id_source="{"lvmlocal" if owner else "none"}"'
    words += f" global {{ use_lvmlockd=0{source} }}"
    if owner:
        words += f' local {{ system_id="{owner}" }}'
    activation = [f'volume_list=["{name}"]'] if name else []
    activation += [] if _has_udev() else ["udev_sync=0", "udev_rules=0"]
    if activation:
        words += f" activation {{ {' '.join(activation)} }}"
    return ["--config", words]


def _has_udev() -> bool:
    return os.path.exists("/run/udev/control")


def _report(words: list[str], timeout: float) -> list[dict[str, Any]]:
    command, *rest = words
    text = commands.must([command, "--reportformat", "json", *rest], timeout)
    (report,) = json.loads(text)["report"]
    (rows,) = report.values()
    return list(rows)
