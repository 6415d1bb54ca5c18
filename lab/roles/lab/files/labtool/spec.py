# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The specification of the lab: the document that the role writes, as objects."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from shell import LabError

MIB = 1 << 20
# The names of the M database and its global directory on their volume.
DATABASE = "mumps.dat"
DIRECTORY = "mumps.gld"
DATABASE_MOUNT = "/srv/m"
FIRST_RING_PORT = 2987
# The volumes of a light server: name, size and fill, in MiB.
LIGHT_VOLUMES = (("home", 4, 1), ("files", 8, 3))
MOST_LIGHT_SERVERS = 500
# The names of backup servers before their number, and where they see the folder that is a shared storage to them.
BACKUP_SERVER = "backup"
SHARED_STORAGE = "/srv/shared"
MOST_BACKUP_SERVERS = 9


@dataclass(frozen=True)
class Volume:
    """A LUN of a file server and the filesystem on it. ``size`` and ``fill`` in MiB."""

    name: str
    serial: str
    mount: str
    filesystem: str
    size: int
    fill: int = 0
    table: str = ""  # gpt: the filesystem is on a partition

    @property
    def link(self) -> str:
        """The link that finds the LUN by its serial."""
        return f"/dev/disk/by-id/wwn-0x{self.serial}"

    @property
    def is_freezable(self) -> bool:
        """Whether the kernel can freeze the filesystem: NTFS is served by a program."""
        return self.filesystem != "ntfs"

    @property
    def device(self) -> str:
        """The link to the device with the filesystem: the LUN, or its one partition."""
        return f"{self.link}-part1" if self.table else self.link


@dataclass(frozen=True)
class Host:
    """One host of the lab; ``number`` is its position in the list, from 1, and determines addresses and interfaces."""

    name: str
    number: int
    kind: str  # file_server, storage, other
    volumes: tuple[Volume, ...] = ()

    @property
    def is_file_server(self) -> bool:
        return self.kind == "file_server"

    @property
    def has_database(self) -> bool:
        """Whether it runs an M database; light servers do not."""
        return any(volume.mount == DATABASE_MOUNT for volume in self.volumes)


@dataclass(frozen=True)
class Load:
    """The settings of the load. Rates are in transactions per second, on each server."""

    running: bool
    local_rate: float
    cross_rate: float
    port: int
    keep: int
    records: int
    light_rate: float = 0  # the file of a lab that an earlier version started has none


@dataclass(frozen=True)
class Ring:
    """A simulated MEDITECH ring: its file servers, and the port of MEDITECH's listener."""

    name: str
    port: int
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Lab:
    """The whole lab.

    ``folder`` is an absolute path without links, and everything that the lab keeps is below it. ``files`` is the role's
    folder of files.
    """

    folder: Path
    profile: str  # namespaces, plain
    hosts: tuple[Host, ...]
    pool_size: int
    gtm_dist: str
    files: Path
    load: Load
    binds: tuple[dict[str, Any], ...] = field(default=())
    rings: tuple[Ring, ...] = ()

    @property
    def id(self) -> str:
        """Six hex digits that distinguish the labs of one machine, derived from the folder's real path."""
        return lab_id(self.folder)

    @property
    def plain(self) -> bool:
        return self.profile == "plain"

    @property
    def file_servers(self) -> list[Host]:
        return [host for host in self.hosts if host.is_file_server]

    @property
    def database_servers(self) -> list[Host]:
        return [host for host in self.hosts if host.has_database]

    @property
    def light_servers(self) -> list[Host]:
        return [host for host in self.file_servers if not host.has_database]

    @property
    def backup_servers(self) -> list[Host]:
        return [host for host in self.hosts if host.name.rstrip("0123456789") == BACKUP_SERVER]

    @property
    def shared_storage(self) -> Path:
        """Return the folder of the machine that all backup servers see."""
        return self.folder / "shared-storage"

    @property
    def storage(self) -> Host:
        return next(host for host in self.hosts if host.kind == "storage")

    def host_folder(self, host: Host) -> Path:
        """Return where a host's own files are on the machine."""
        return self.folder / "hosts" / host.name

    def on_host(self, host: Host, path: str) -> str:
        """Return a path of the host as the host itself sees it; in the plain profile it is below the host's folder."""
        return str(self.host_folder(host)) + path if self.plain else path

    def port(self, host: Host) -> int:
        """Return the TCP port of the host's receiver. Plain hosts, even of several labs, share one address."""
        if not self.plain:
            return self.load.port
        return 20000 + int(self.id, 16) % 1000 * 10 + host.number


def require_possible(lab: Lab) -> None:
    """Raise `LabError` if the lab's light servers or backup servers contradict its other settings."""
    count = len(lab.light_servers)
    if count > MOST_LIGHT_SERVERS:
        raise LabError(f"lab_light_servers is {count}: it must be at most {MOST_LIGHT_SERVERS}")
    if count and lab.plain:
        raise LabError("lab_light_servers needs the profile 'namespaces': plain hosts have no filesystems of their own")
    if count and lab.rings:
        raise LabError("lab_light_servers and lab_mbf exclude each other: rings consist of the servers with databases")
    backup_servers = len(lab.backup_servers)
    if backup_servers > MOST_BACKUP_SERVERS:
        raise LabError(f"lab_backup_servers is {backup_servers}: it must be at most {MOST_BACKUP_SERVERS}")
    if backup_servers > 1 and lab.plain:
        raise LabError("lab_backup_servers needs the profile 'namespaces': plain hosts have no mounts of their own")


def bare(folder: Path) -> Lab:
    """Return a lab of which only the folder is known: enough to find and remove its processes."""
    nothing = Load(running=False, local_rate=1, cross_rate=1, port=0, keep=0, records=0, light_rate=1)
    return Lab(folder.resolve(), "namespaces", (), 0, "", folder, nothing)


def _volume(given: dict[str, Any]) -> Volume:
    # Sizes from Ansible's command line arrive as text.
    return Volume(**{**given, "size": int(given["size"]), "fill": int(given.get("fill", 0))})


def _light_server(number: int) -> dict[str, Any]:
    """The description of a file server with two small filesystems and no database, like those in the document."""
    volumes = [
        {
            "name": name,
            "serial": f"6f70656e6973{number:03x}{place:x}",
            "mount": f"/srv/{name}",
            "filesystem": "ext4",
            "size": size,
            "fill": fill,
        }
        for place, (name, size, fill) in enumerate(LIGHT_VOLUMES, start=1)
    ]
    return {"name": f"fs{number:03d}", "kind": "file_server", "volumes": volumes}


def _hosts(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The hosts to make: those of the document, or light servers in place of its file servers; and backup servers.

    Further backup servers come last, so that they change no number of another host.
    """
    count, hosts = document.get("light_servers", 0), list(document["hosts"])
    if count:
        others = [host for host in hosts if host["kind"] != "file_server"]
        hosts = [*(_light_server(number) for number in range(1, count + 1)), *others]
    numbers = range(2, document.get("backup_servers", 1) + 1)
    return hosts + [{"name": f"{BACKUP_SERVER}{number}", "kind": "other"} for number in numbers]


def _shared_storage(lab: Lab) -> dict[str, Any]:
    """The bind mount that stands for storage that all backup servers share."""
    names = [host.name for host in lab.backup_servers]
    return {"source": str(lab.shared_storage), "path": SHARED_STORAGE, "hosts": names, "writable": True}


def lab_id(folder: Path) -> str:
    """Return the id of the lab in this folder. The inventories compute the same id."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:6]


def read(path: Path) -> Lab:
    """Read the lab that the document at ``path`` describes."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabError(f"{path}: there is no lab: start it with lab/lab.yml") from error
    hosts = [
        Host(
            name=each["name"],
            number=number,
            kind=each["kind"],
            volumes=tuple(_volume(volume) for volume in each.get("volumes", [])),
        )
        for number, each in enumerate(_hosts(document), start=1)
    ]
    lab = Lab(
        folder=Path(document["folder"]).resolve(),
        profile=document["profile"],
        hosts=tuple(hosts),
        pool_size=document["pool_size"],
        gtm_dist=document["gtm_dist"],
        files=Path(document["files"]).resolve(),
        load=Load(**document["load"]),
        binds=tuple(document.get("binds", ())),
        rings=tuple(
            Ring(ring["key"], FIRST_RING_PORT + number, tuple(ring["value"]))
            for number, ring in enumerate(document.get("rings", []))
        ),
    )
    return replace(lab, binds=(*lab.binds, _shared_storage(lab)))
