# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LUNs of a drill on a DR host: block devices made from an export of a backup server or storage host, or a file.

    source -> nbdkit (nbd or file, with an overlay) -> the kernel's NBD client, or nbdfuse and a loop device

A file without overlay needs only a loop device, and a device without overlay is used as it is. Partitions are
separate loop devices, so that nothing depends on udev.
"""

from __future__ import annotations

import os
import time
from typing import Any

from ..host import processes
from ..host.volumes import device_size
from . import btrfs, lvm, names, nbd, serve, table
from . import loops as luns_loops
from . import mounts as luns_mounts
from . import source as luns_source
from .end import End
from .errors import LunError
from .records import FOLDER, Records, shown

METHODS = ("auto", "nbd", "fuse")
# Seconds in which the source of a LUN must respond to a probe.
PROBE = 5.0


class Luns:
    """The LUNs recorded below ``run_dir``."""

    def __init__(self, run_dir: str) -> None:
        self.folder = os.path.join(run_dir, FOLDER)
        self.records = Records(self.folder)

    def of_drill(self, drill: str = "") -> list[dict[str, Any]]:
        """All LUNs, or those of a drill, each with ``running`` and ``mounts``."""
        return [as_it_is(record) for record in self.records.all() if drill in ("", record["drill"])]

    def get(self, name: str) -> dict[str, Any] | None:
        """A LUN's record, with whether it runs and what is mounted from it; None if there is none."""
        record = self.records.get(name)
        return None if record is None else as_it_is(record)

    def trouble(self, name: str) -> str:
        """Why a LUN cannot read its source, if known: the source does not respond, or nbdkit logged an error.

        Programs only see that a disk cannot be read, and report that in various ways.
        """
        record = self.records.get(name)
        if record is None or not luns_source.is_uri(record["source"]):
            return ""
        try:
            luns_source.connect(luns_source.parse(record["source"]), PROBE).close()
        except LunError as error:
            return str(error)
        said = serve.last_words(record["folder"])
        return f"its nbdkit reports: {said}" if said else ""

    def start(self, wanted: dict[str, Any], psk: str) -> dict[str, Any]:
        """Create the LUN that ``wanted`` describes: name, drill, source, overlay, scratch, timeout, expires, method.

        ``sector_size``: that of the original disk; 0 or omitted if unknown.
        """
        name = names.checked(wanted["name"])
        with self.records.locked(name):
            if self.records.get(name):
                raise LunError("it already exists, perhaps partly: end it first")
            record = self._new_record(wanted)
            try:
                self._make(record, wanted["source"], psk)
            except BaseException as error:
                left = End(self.folder, record).run()
                if not left:
                    self.records.forget(name)
                elif isinstance(error, LunError):
                    raise LunError(f"{error}. What could not be removed again: {'; '.join(left)}") from error
                raise
        return shown(record)

    def stop(self, name: str) -> list[str]:
        """End a LUN, in whatever state it is; returns descriptions of what is left."""
        with self.records.locked(names.checked(name)):
            left = End(self.folder, self.records.get(name) or {"name": name}).run()
            if not left:
                self.records.forget(name)
        return left

    def traces(self, name: str) -> bool:
        """Whether anything of a LUN exists, recorded or not."""
        directory = names.folder(self.folder, name)
        return bool(
            self.records.get(name)
            or os.path.lexists(directory)
            or luns_loops.labelled(names.label(name))
            or serve.find_of(directory)
        )

    def _new_record(self, wanted: dict[str, Any]) -> dict[str, Any]:
        is_uri = luns_source.is_uri(wanted["source"])
        if is_uri:
            luns_source.parse(wanted["source"])
        is_device = not is_uri and luns_source.check_path(wanted["source"])
        if not is_uri and not wanted["overlay"]:
            luns_source.check_unused(wanted["source"])
        record = {
            **{key: wanted[key] for key in ("name", "drill", "overlay", "scratch", "timeout", "expires")},
            "told": wanted.get("sector_size") or 0,
            "source": luns_source.without_secrets(wanted["source"]),
            "created": int(time.time()),
            "folder": names.folder(self.folder, wanted["name"]),
            "served": is_uri or wanted["overlay"],
            "method": _method(wanted["method"]) if is_uri or wanted["overlay"] else "device" if is_device else "loop",
            "processes": {},
            "parts": [],
        }
        self.records.write(record, step="begun")
        return record

    def _make(self, record: dict[str, Any], source: str, psk: str) -> None:
        if record["served"]:
            os.makedirs(record["folder"], mode=0o700, exist_ok=True)
            if record["overlay"]:
                os.makedirs(record["scratch"], mode=0o700, exist_ok=True)
            self._step(record, "nbdkit", serve.start_nbdkit(record, source, psk))
        file = self._attach(record, os.path.realpath(source))
        self.records.write(record, size=device_size(record["device"]), step="parts")
        self._find_parts(record, file)
        self.records.write(record, step="ready")

    def _step(self, record: dict[str, Any], program: str, process: dict[str, Any]) -> None:
        record["processes"][program] = process
        self.records.write(record, step=program)

    def _attach(self, record: dict[str, Any], source: str) -> str:
        """Create the device of the whole LUN; returns what its partitions' devices are attached to."""
        if record["method"] == "device" and self._use_device(record, source):
            return source
        if record["method"] == "nbd":
            return self._attach_nbd(record)
        file = source
        if record["method"] == "fuse":
            self.records.write(record, step="nbdfuse")
            self._step(record, "nbdfuse", serve.start_nbdfuse(record))
            file = names.disk(record["folder"])
        sector = table.sector_size(file, record["timeout"], record["told"])
        self.records.write(record, step="loop", sector=sector)
        device, writable = self._loop(record, file, names.label(record["name"]))
        self.records.write(record, device=device, writable=writable)
        return file

    def _use_device(self, record: dict[str, Any], source: str) -> bool:
        """Use a device as it is, unless its partition table assumes another sector size: then a loop device does."""
        own = luns_loops.sector_size(source)
        sector = table.sector_size(source, record["timeout"], record["told"] or own)
        if sector != own and table.has_table(source, record["timeout"]):
            self.records.write(record, method="loop")
            return False
        self.records.write(record, device=source, writable=os.access(source, os.W_OK), sector=own)
        return True

    def _attach_nbd(self, record: dict[str, Any]) -> str:
        sector = record["told"] or table.SECTOR
        for name in nbd.free():
            self.records.write(record, step="nbd", nbd=name)
            if nbd.connect(record, name, sector):
                device = nbd.node(name)
                found = table.sector_size(device, record["timeout"], record["told"])
                if found != sector:  # now it can be read, which shows the size
                    nbd.reconnect(record, name, found)
                luns_loops.read_ahead(device)
                self.records.write(record, device=device, writable=nbd.is_writable(name), sector=found)
                return device
        raise LunError("all NBD devices of this host are in use: load the kernel module nbd with a larger nbds_max")

    def _loop(self, record: dict[str, Any], file: str, label: str, offset: int = 0, size: int = 0) -> tuple[str, bool]:
        direct = record["method"] == "fuse"
        device, writable = luns_loops.attach(file, label, offset, size, record["sector"], direct)
        luns_loops.read_ahead(device)
        return device, writable

    def _find_parts(self, record: dict[str, Any], file: str) -> None:
        device, timeout = record["device"], record["timeout"]
        kind = table.table(device, timeout)
        self.records.write(record, table=kind)
        if not kind:
            whole = {"number": 0, "device": device, "offset": 0, "size": record["size"], "name": ""}
            self._add_part(record, whole)
            return
        for part in table.partitions(device, timeout):
            if part["offset"] + part["size"] > record["size"]:
                raise LunError(
                    f"partition {part['number']} of {record['name']} ends beyond the end of the LUN ({record['size']} "
                    "bytes): the copy is shorter than its original"
                )
            label = names.label(record["name"], part["number"])
            part["device"], _writable = self._loop(record, file, label, part["offset"], part["size"])
            self._add_part(record, part)

    def _add_part(self, record: dict[str, Any], part: dict[str, Any]) -> None:
        self._add_filesystem(record, part)
        if part["type"] == lvm.TYPE:
            self._add_logical_volumes(record, part)

    def _add_filesystem(self, record: dict[str, Any], part: dict[str, Any]) -> None:
        """Record what is on a device of the LUN, a partition or a logical volume, and make it ready to be mounted."""
        part.update(table.filesystem(part["device"], record["timeout"]))
        record["parts"].append(part)
        self.records.write(record)
        if part["type"] == btrfs.TYPE:
            btrfs.prepare(part["device"], part["uuid"])

    def _add_logical_volumes(self, record: dict[str, Any], part: dict[str, Any]) -> None:
        device, timeout = part["device"], record["timeout"]
        original = lvm.group_of(device, timeout)
        if not original:
            return
        group = names.group(record["name"], part["number"])
        self.records.write(record, groups=[*record.get("groups", []), group])
        lvm.import_group(device, group, timeout)
        for volume in lvm.volumes(device, group, timeout):
            volume.update(number=part["number"], offset=0, name=f"{original}/{volume['name']}")
            self._add_filesystem(record, volume)


def ending_order(luns: dict[str, dict[str, Any]]) -> list[list[str]]:
    """The names of LUNs in the order in which they can be ended: those of one list at once, each list after the last.

    ``luns``: by name, as Luns.get() returns them, or just the name. What is mounted below another LUN's mount comes
    first, as that one would be in use.
    """
    mounts = {name: [each["path"] for each in lun.get("mounts", [])] for name, lun in luns.items()}
    return luns_mounts.generations({name: max(mounts[name], key=len, default="") for name in luns})[::-1]


def devices_of(record: dict[str, Any]) -> list[str]:
    """All devices of a record."""
    found = [record.get("device", ""), *(part["device"] for part in record.get("parts", []))]
    return list(dict.fromkeys(device for device in found if device))


def as_it_is(record: dict[str, Any]) -> dict[str, Any]:
    """A LUN's record, with whether it runs and what is mounted from it."""
    mounts = luns_mounts.of_devices(devices_of(record))
    return {
        **shown(record),
        "created": record["created"],
        "running": is_running(record),
        "mounts": [{"device": each.source, "path": each.point, "type": each.type} for each in mounts],
    }


def is_running(record: dict[str, Any]) -> bool:
    """Whether a LUN is complete and running."""
    attached = luns_loops.labelled(names.label(record["name"])).values()
    loops = [device for device in devices_of(record) if device.startswith("/dev/loop")]
    if record["method"] == "device":
        loops = [device for device in loops if device != record.get("device")]
    return (
        record.get("step") == "ready"
        and all(processes.is_running(each) for each in record["processes"].values())
        and all(device in attached for device in loops)
        and all(lvm.is_active(group) for group in record.get("groups", []))
        and (record["method"] != "nbd" or bool(nbd.of(record, record["folder"])))
        and (record["method"] != "device" or os.path.exists(record["device"]))
    )


def _method(asked: str) -> str:
    if asked != "auto":
        return asked
    return "nbd" if nbd.usable() else "fuse"
