# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume groups on a LUN. They are imported under names of ours: the host may have the original, or another copy.

LVM is told to look at the LUN alone, so that it neither sees nor touches what else the host has.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from ..plain import plain
from . import luns_commands
from .luns_errors import LunError

TYPE = "LVM2_member"
NAME = re.compile(r"[A-Za-z0-9_+.][A-Za-z0-9_+.-]*")
"""What LVM takes for a name. What a copy says becomes an argument and a path here, so it is looked at once more."""


def group_of(device: str, timeout: float) -> str:
    """The name, in the copy, of the volume group that a physical volume belongs to; empty where it is in none."""
    found = _report(["pvs", *_settings([device]), "-o", "vg_name", device], timeout)
    return _checked(found[0]["vg_name"], device) if found and found[0]["vg_name"] else ""


def import_group(device: str, name: str, timeout: float) -> None:
    """Give the volume group on a device a new name and new identities, and activate it."""
    settings = _settings([device])
    # A host with udev may have activated it already, under its own name.
    luns_commands.run(["vgchange", *settings, "-an", group_of(device, timeout)], timeout)
    done = luns_commands.run(["vgimportclone", *settings, "--basevgname", name, device], timeout)
    if done.status:
        raise LunError(
            f"the volume group on {device} cannot be imported: {luns_commands.told(done)}. A group must be on one LUN "
            "as a whole, and the LUN must be writable (overlay)"
        )
    luns_commands.must(["vgchange", *settings, "-ay", name], timeout)
    if not _has_udev():
        luns_commands.must(["vgmknodes", *settings, name], timeout)


def volumes(device: str, name: str, timeout: float) -> list[dict[str, Any]]:
    """The active logical volumes of an imported group: name, device and size."""
    found = _report(
        ["lvs", *_settings([device]), "--units", "b", "--nosuffix", "-o", "lv_name,lv_size,lv_active", name], timeout
    )
    active = [(_checked(row["lv_name"], device), int(row["lv_size"])) for row in found if row["lv_active"] == "active"]
    return [{"name": volume, "device": f"/dev/{name}/{volume}", "size": size} for volume, size in active]


def _checked(name: str, device: str) -> str:
    if not NAME.fullmatch(name) or name in (".", ".."):
        raise LunError(f"LVM on {device} has the name '{plain(name)}', which it takes from nobody: do not use the copy")
    return name


def deactivate(devices: list[str], name: str, timeout: float) -> None:
    """Let go of an imported group; one that is gone is fine."""
    if not is_active(name):
        return
    luns_commands.must(["vgchange", *_settings(devices), "-an", name], timeout)


def is_active(name: str) -> bool:
    """Whether the kernel has a volume of the group."""
    return bool(mapped(name))


def mapped(name: str) -> list[str]:
    """The kernel's names (dm-0) of the volumes of a group."""
    found = []
    for entry in sorted(os.listdir("/sys/block")):
        path = f"/sys/block/{entry}/dm/name"
        if os.path.exists(path):
            with open(path, encoding="utf-8") as stream:
                # device-mapper doubles the dashes of both names; ours has none.
                if stream.read().startswith(name + "-"):
                    found.append(entry)
    return found


def _settings(devices: list[str]) -> list[str]:
    """LVM's settings: these devices alone, whether or not they are in its list, and no udev where there is none."""
    accepted = [f'"a|^{re.escape(device)}$|"' for device in devices]
    only = "[{}]".format(",".join([*accepted, '"r|.*|"']))
    words = f"devices {{ filter={only} global_filter={only} use_devicesfile=0 obtain_device_list_from_udev=0 }}"
    words += " backup { backup=0 archive=0 }"  # copies of a group are nothing to keep on this host
    if not _has_udev():
        words += " activation { udev_sync=0 udev_rules=0 }"
    return ["--config", words]


def _has_udev() -> bool:
    return os.path.exists("/run/udev/control")


def _report(words: list[str], timeout: float) -> list[dict[str, Any]]:
    command, *rest = words
    text = luns_commands.must([command, "--reportformat", "json", *rest], timeout)
    (report,) = json.loads(text)["report"]
    (rows,) = report.values()
    return list(rows)
