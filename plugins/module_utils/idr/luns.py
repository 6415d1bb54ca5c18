# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""LUNs of a drill on a DR host: block devices made of what a backup server or a storage serves, or of a file.

    source -> nbdkit (nbd or file, with an overlay) -> the kernel's NBD client, or nbdfuse and a loop device

A file without overlay is a loop device alone, and a device without overlay is used as it is. Partitions are loop
devices of their own, so that nothing depends on udev.
"""

from __future__ import annotations

import os
import time
from typing import Any

from .. import processes
from ..volumes import device_size
from . import luns_loops, luns_lvm, luns_mounts, luns_names, luns_nbd, luns_serve, luns_source, luns_table
from .luns_end import End
from .luns_errors import LunError
from .luns_records import FOLDER, Records, shown

METHODS = ("auto", "nbd", "fuse")
# Seconds in which the source of a LUN has to answer who asks whether it is there.
PROBE = 5.0


class Luns:
    """The LUNs recorded below ``run_dir``."""

    def __init__(self, run_dir: str) -> None:
        self.folder = os.path.join(run_dir, FOLDER)
        self.records = Records(self.folder)

    def of_drill(self, drill: str = "") -> list[dict[str, Any]]:
        """All LUNs, or those of a drill: each with running and mounts."""
        return [as_it_is(record) for record in self.records.all() if drill in ("", record["drill"])]

    def get(self, name: str) -> dict[str, Any] | None:
        """A LUN as it is recorded, with whether it runs and what is mounted from it; None where there is none."""
        record = self.records.get(name)
        return None if record is None else as_it_is(record)

    def trouble(self, name: str) -> str:
        """What keeps a LUN from its source, as far as can be told: that does not answer, or its nbdkit says something.

        Programs only see that a disk cannot be read, and call it what they like.
        """
        record = self.records.get(name)
        if record is None or not luns_source.is_uri(record["source"]):
            return ""
        try:
            luns_source.connect(luns_source.parse(record["source"]), PROBE).close()
        except LunError as error:
            return str(error)
        said = luns_serve.last_words(record["folder"])
        return f"its nbdkit says: {said}" if said else ""

    def start(self, wanted: dict[str, Any], psk: str) -> dict[str, Any]:
        """Make the LUN that ``wanted`` tells of: name, drill, source, overlay, scratch, timeout, expires, method."""
        name = luns_names.checked(wanted["name"])
        with self.records.locked(name):
            if self.records.get(name):
                raise LunError("it is there already, or half there: end it first")
            record = self._new_record(wanted)
            try:
                self._make(record, wanted["source"], psk)
            except BaseException as error:
                left = End(self.folder, record).run()
                if not left:
                    self.records.forget(name)
                elif isinstance(error, LunError):
                    raise LunError(f"{error}. What could not be ended again: {'; '.join(left)}") from error
                raise
        return shown(record)

    def stop(self, name: str) -> list[str]:
        """End a LUN, whatever there is of it; returns what is left, as texts."""
        with self.records.locked(luns_names.checked(name)):
            left = End(self.folder, self.records.get(name) or {"name": name}).run()
            if not left:
                self.records.forget(name)
        return left

    def traces(self, name: str) -> bool:
        """Whether anything is there of a LUN, recorded or not."""
        directory = luns_names.folder(self.folder, name)
        return bool(
            self.records.get(name)
            or os.path.lexists(directory)
            or luns_loops.labelled(luns_names.label(name))
            or luns_serve.find_of(directory)
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
            "source": luns_source.without_secrets(wanted["source"]),
            "created": int(time.time()),
            "folder": luns_names.folder(self.folder, wanted["name"]),
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
            self._step(record, "nbdkit", luns_serve.start_nbdkit(record, source, psk))
        file = self._attach(record, os.path.realpath(source))
        self.records.write(record, size=device_size(record["device"]), step="parts")
        self._find_parts(record, file)
        self.records.write(record, step="ready")

    def _step(self, record: dict[str, Any], program: str, process: dict[str, Any]) -> None:
        record["processes"][program] = process
        self.records.write(record, step=program)

    def _attach(self, record: dict[str, Any], source: str) -> str:
        """Make the device of the whole LUN; returns what the devices of its partitions are attached to."""
        if record["method"] == "device":
            self.records.write(record, device=source, writable=os.access(source, os.W_OK))
            return source
        if record["method"] == "nbd":
            return self._attach_nbd(record)
        file = source
        if record["method"] == "fuse":
            self.records.write(record, step="nbdfuse")
            self._step(record, "nbdfuse", luns_serve.start_nbdfuse(record))
            file = luns_names.disk(record["folder"])
        sector = luns_table.sector_size(file, record["timeout"])
        self.records.write(record, step="loop", sector=sector)
        device, writable = self._loop(record, file, luns_names.label(record["name"]))
        self.records.write(record, device=device, writable=writable)
        return file

    def _attach_nbd(self, record: dict[str, Any]) -> str:
        for name in luns_nbd.free():
            self.records.write(record, step="nbd", nbd=name)
            if luns_nbd.connect(record, name):
                device = luns_nbd.node(name)
                luns_loops.read_ahead(device)
                sector = luns_table.sector_size(device, record["timeout"])
                self.records.write(record, device=device, writable=luns_nbd.is_writable(name), sector=sector)
                return device
        raise LunError("every NBD device of this host is in use: load the kernel module nbd with a larger nbds_max")

    def _loop(self, record: dict[str, Any], file: str, label: str, offset: int = 0, size: int = 0) -> tuple[str, bool]:
        direct = record["method"] == "fuse"
        device, writable = luns_loops.attach(file, label, offset, size, record["sector"], direct)
        luns_loops.read_ahead(device)
        return device, writable

    def _find_parts(self, record: dict[str, Any], file: str) -> None:
        device, timeout = record["device"], record["timeout"]
        kind = luns_table.table(device, timeout)
        self.records.write(record, table=kind)
        if not kind:
            whole = {"number": 0, "device": device, "offset": 0, "size": record["size"], "name": ""}
            self._add_part(record, whole)
            return
        if "sector" not in record:
            record["sector"] = luns_table.sector_size(device, timeout)
        for part in luns_table.partitions(device, timeout):
            if part["offset"] + part["size"] > record["size"]:
                raise LunError(
                    f"partition {part['number']} of {record['name']} ends beyond the end of the LUN ({record['size']} "
                    "bytes): the copy is shorter than its original"
                )
            label = luns_names.label(record["name"], part["number"])
            part["device"], _writable = self._loop(record, file, label, part["offset"], part["size"])
            self._add_part(record, part)

    def _add_part(self, record: dict[str, Any], part: dict[str, Any]) -> None:
        part.update(luns_table.filesystem(part["device"], record["timeout"]))
        record["parts"].append(part)
        self.records.write(record)
        _check_collision(part)
        if part["type"] == luns_lvm.TYPE:
            self._add_logical_volumes(record, part)

    def _add_logical_volumes(self, record: dict[str, Any], part: dict[str, Any]) -> None:
        device, timeout = part["device"], record["timeout"]
        original = luns_lvm.group_of(device, timeout)
        if not original:
            return
        group = luns_names.group(record["name"], part["number"])
        self.records.write(record, groups=[*record.get("groups", []), group])
        luns_lvm.import_group(device, group, timeout)
        for volume in luns_lvm.volumes(device, group, timeout):
            volume.update(luns_table.filesystem(volume["device"], timeout))
            volume.update(number=part["number"], offset=0, name=f"{original}/{volume['name']}")
            record["parts"].append(volume)
        self.records.write(record)


def devices_of(record: dict[str, Any]) -> list[str]:
    """All devices that a record tells of."""
    found = [record.get("device", ""), *(part["device"] for part in record.get("parts", []))]
    return list(dict.fromkeys(device for device in found if device))


def as_it_is(record: dict[str, Any]) -> dict[str, Any]:
    """A LUN as it is recorded, with whether it runs and what is mounted from it."""
    mounts = luns_mounts.of_devices(devices_of(record))
    return {
        **shown(record),
        "created": record["created"],
        "running": is_running(record),
        "mounts": [{"device": each.source, "path": each.point, "type": each.type} for each in mounts],
    }


def is_running(record: dict[str, Any]) -> bool:
    """Whether all of a LUN is there."""
    attached = luns_loops.labelled(luns_names.label(record["name"])).values()
    loops = [device for device in devices_of(record) if device.startswith("/dev/loop")]
    if record["method"] == "device":
        loops = [device for device in loops if device != record.get("device")]
    return (
        record.get("step") == "ready"
        and all(processes.is_running(each["pid"], each["ticks"]) for each in record["processes"].values())
        and all(device in attached for device in loops)
        and all(luns_lvm.is_active(group) for group in record.get("groups", []))
        and (record["method"] != "nbd" or bool(luns_nbd.of(record, record["folder"])))
        and (record["method"] != "device" or os.path.exists(record["device"]))
    )


def _method(asked: str) -> str:
    if asked != "auto":
        return asked
    return "nbd" if luns_nbd.usable() else "fuse"


def _check_collision(part: dict[str, Any]) -> None:
    """Refuse a btrfs that an older kernel would take for its mounted original: it tells them apart by uuid alone."""
    if part["type"] != "btrfs" or os.path.exists("/sys/fs/btrfs/features/temp_fsid"):
        return
    if os.path.exists(f"/sys/fs/btrfs/{part['uuid']}"):
        raise LunError(
            f"a btrfs with the identity of {part['device']} ({part['uuid']}) is mounted on this host, and its kernel "
            "cannot tell the two apart: unmount it, choose another DR host, or use a kernel from 6.7 on"
        )
