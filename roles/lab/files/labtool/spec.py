# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab is to be: the document that the role writes, as objects."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from shell import LabError

MIB = 1 << 20
# The names of the M database and its global directory, on the volume that bears them.
DATABASE = "mumps.dat"
DIRECTORY = "mumps.gld"
FIRST_RING_PORT = 2987


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
        """Whether the kernel can freeze the filesystem: NTFS is a program's."""
        return self.filesystem != "ntfs"

    @property
    def device(self) -> str:
        """The link to what bears the filesystem: the LUN, or its one partition."""
        return f"{self.link}-part1" if self.table else self.link


@dataclass(frozen=True)
class Host:
    """One host of the lab; ``number`` is its place in the list, from 1: it decides addresses and interfaces."""

    name: str
    number: int
    kind: str  # file_server, storage, other
    volumes: tuple[Volume, ...] = ()

    @property
    def is_file_server(self) -> bool:
        return self.kind == "file_server"


@dataclass(frozen=True)
class Load:
    """What the load does. Rates in transactions a second, on each server."""

    running: bool
    local_rate: float
    cross_rate: float
    port: int
    keep: int
    records: int


@dataclass(frozen=True)
class Ring:
    """A MEDITECH ring that is stood in for: file servers, and the port of their listener."""

    name: str
    port: int
    servers: tuple[str, ...]


@dataclass(frozen=True)
class Lab:
    """The whole lab.

    ``folder`` is real and absolute, and everything that the lab keeps is below it; ``files`` are those of the role.
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
        """Six hex digits that tell the labs of one machine apart: they come from the folder's real path."""
        return lab_id(self.folder)

    @property
    def plain(self) -> bool:
        return self.profile == "plain"

    @property
    def file_servers(self) -> list[Host]:
        return [host for host in self.hosts if host.is_file_server]

    @property
    def storage(self) -> Host:
        return next(host for host in self.hosts if host.kind == "storage")

    def host_folder(self, host: Host) -> Path:
        """Where a host's own files are on the machine."""
        return self.folder / "hosts" / host.name

    def on_host(self, host: Host, path: str) -> str:
        """A path of the host as the host itself names it: in the plain profile, below the host's folder."""
        return str(self.host_folder(host)) + path if self.plain else path

    def port(self, host: Host) -> int:
        """The TCP port of the host's receiver. Plain hosts share one address, and machines may hold several labs."""
        if not self.plain:
            return self.load.port
        return 20000 + int(self.id, 16) % 1000 * 10 + host.number


def bare(folder: Path) -> Lab:
    """A lab of which nothing is known but its folder: enough to find and remove what runs of it."""
    nothing = Load(running=False, local_rate=1, cross_rate=1, port=0, keep=0, records=0)
    return Lab(folder.resolve(), "namespaces", (), 0, "", folder, nothing)


def _volume(given: dict[str, Any]) -> Volume:
    # Sizes given on the command line of Ansible arrive as text.
    return Volume(**{**given, "size": int(given["size"]), "fill": int(given.get("fill", 0))})


def lab_id(folder: Path) -> str:
    """The id of the lab in this folder. The inventories compute the same."""
    return hashlib.sha256(str(folder).encode()).hexdigest()[:6]


def read(path: Path) -> Lab:
    """The lab that the document at ``path`` describes."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LabError(f"{path}: there is no lab: start it with playbooks/lab.yml") from error
    hosts = [
        Host(
            name=each["name"],
            number=number,
            kind=each["kind"],
            volumes=tuple(_volume(volume) for volume in each.get("volumes", [])),
        )
        for number, each in enumerate(document["hosts"], start=1)
    ]
    return Lab(
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
