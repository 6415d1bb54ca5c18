# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab with light servers: any number of them fits into its network, names and serials."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = yaml.safe_load((ROOT / "lab/roles/lab/defaults/main.yml").read_text())
Tool = dict[str, ModuleType]


def lab_of(tool: Tool, folder: Path, count: int, **changes: Any) -> Any:
    """The lab that the role describes, with ``count`` light servers."""
    hosts = json.loads(json.dumps(DEFAULTS["lab_hosts"]))
    for volume in [volume for host in hosts for volume in host.get("volumes", [])]:
        volume.update(size=384, fill=0)
    document = {
        "folder": str(folder),
        "profile": "namespaces",
        "hosts": hosts,
        "light_servers": count,
        "pool_size": 1024,
        "gtm_dist": "/nowhere",
        "files": str(folder),
        "load": {
            "running": True,
            "local_rate": 40,
            "cross_rate": 20,
            "port": 6610,
            "keep": 1,
            "records": 1,
            "light_rate": 3,
        },
        **changes,
    }
    (folder / "lab.json").write_text(json.dumps(document))
    return tool["spec"].read(folder / "lab.json")


def test_without_light_servers_it_is_the_lab_as_it_was(labtool: Tool, tmp_path: Path) -> None:
    lab = lab_of(labtool, tmp_path, 0)
    assert [host.name for host in lab.database_servers] == ["fs1", "fs2", "fs3"]
    assert lab.light_servers == []
    assert labtool["network"].prefix(lab) == 26


def test_further_backup_servers_share_a_folder_and_change_no_other_host(labtool: Tool, tmp_path: Path) -> None:
    one, three = (lab_of(labtool, tmp_path, 0, backup_servers=count) for count in (1, 3))
    assert [host.name for host in three.backup_servers] == ["backup1", "backup2", "backup3"]
    assert three.hosts[: len(one.hosts)] == one.hosts
    (shared,) = three.binds
    assert shared == {
        "source": str(tmp_path / "shared-storage"),
        "path": "/srv/shared",
        "hosts": ["backup1", "backup2", "backup3"],
        "writable": True,
    }
    told = json.loads(labtool["host_files"]._backup_inventory(three))["backup_servers"]["hosts"]
    assert list(told) == ["backup1", "backup2", "backup3"]
    assert told["backup2"] == {"repository_path": "/srv/shared/repository", "repository_shared": True}
    labtool["spec"].require_possible(three)


@pytest.mark.parametrize(("changes", "why"), [({"backup_servers": 10}, "at most 9"), ({"profile": "plain"}, "mounts")])
def test_backup_servers_that_cannot_be(labtool: Tool, tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    lab = lab_of(labtool, tmp_path, 0, **{"backup_servers": 2, **changes})
    with pytest.raises(labtool["shell"].LabError, match=why):
        labtool["spec"].require_possible(lab)


@pytest.mark.parametrize(("count", "prefix"), [(3, 26), (58, 26), (59, 25), (100, 25), (122, 25), (123, 24), (500, 23)])
def test_all_hosts_fit_into_the_subnet(labtool: Tool, tmp_path: Path, count: int, prefix: int) -> None:
    lab = lab_of(labtool, tmp_path, count)
    labtool["spec"].require_possible(lab)
    assert [host.name for host in lab.hosts][-4:] == [f"fs{count:03d}", "storage1", "backup1", "dr1"]
    assert labtool["network"].prefix(lab) == prefix
    subnet = ipaddress.IPv4Network(f"198.18.0.0/{prefix}")
    network = labtool["network"].Network(lab, subnet)
    addresses = {ipaddress.IPv4Address(network.address(host)) for host in lab.hosts}
    assert len(addresses) == len(lab.hosts) == count + 3
    assert all(each in subnet for each in addresses)
    assert not addresses & {subnet.network_address, subnet.broadcast_address, ipaddress.IPv4Address(network.machine)}
    hardware = {network.hardware_address(number) for number in range(len(lab.hosts) + 1)}
    assert len(hardware) == len(lab.hosts) + 1
    assert all(len(each) == 17 for each in hardware)
    assert all(len(network.interface(host)) <= 15 for host in lab.hosts)


def test_serials_are_unique_and_the_inventory_has_them(labtool: Tool, tmp_path: Path) -> None:
    lab = lab_of(labtool, tmp_path, 300)
    serials = [volume.serial for host in lab.file_servers for volume in host.volumes]
    assert len(set(serials)) == 600
    assert all(len(serial) == 16 and set(serial) <= set("0123456789abcdef") for serial in serials)
    servers = json.loads(labtool["host_files"]._light_inventory(lab))["file_servers"]["hosts"]
    assert [volume["serial"] for host in servers.values() for volume in host["isb_volumes"]] == serials
    assert servers["fs300"]["isb_volumes"][0] == {"name": "home", "serial": serials[-2], "mount": "/srv/home"}


def test_a_light_server_is_written_to_and_has_no_database(labtool: Tool, tmp_path: Path) -> None:
    lab = lab_of(labtool, tmp_path, 2)
    (argv,) = labtool["load"].programs(lab, lab.light_servers[0]).values()
    assert argv[-4:] == ["/lab/light/writer.py", "3", "/srv/home", "/srv/files"]
    assert lab.database_servers == []


@pytest.mark.parametrize(
    ("count", "changes", "text"),
    [
        (501, {}, "must be at most 500"),
        (3, {"profile": "plain"}, "needs the profile 'namespaces'"),
        (3, {"rings": [{"key": "npr", "value": ["fs1"]}]}, "exclude each other"),
    ],
)
def test_what_cannot_be_is_refused(labtool: Tool, tmp_path: Path, count: int, changes: Any, text: str) -> None:
    lab = lab_of(labtool, tmp_path, count, **changes)
    with pytest.raises(labtool["shell"].LabError, match=text):
        labtool["spec"].require_possible(lab)
