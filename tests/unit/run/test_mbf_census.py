# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventory plugin: what it makes of a census, as Ansible loads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible_collections.openisb.backup.plugins.module_utils.control.census import census_problems
from ansible_collections.openisb.backup.plugins.module_utils.control.inventory import inventory_problems
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.answers import parse_census

NPR = (
    "MBF\nFS1:FS1 E=600A098038303053|,F=600A098038303054|624A9370600A098038303054,\nMTFS2:MTFS2 E=600A098038303055|,\n"
)
MAT = "FS3:FS3 E=600A098038303056|,\n"


def load(folder: Path, **options: Any) -> InventoryManager:
    (folder / "census-npr.txt").write_text(NPR)
    (folder / "census-mat.txt").write_text(MAT)
    config = {
        "plugin": "openisb.backup.mbf_census",
        "rings": {"npr": {"census_file": "census-npr.txt"}, "mat": {"census_file": "census-mat.txt"}},
        **options,
    }
    path = folder / "site.mbf_census.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    return InventoryManager(loader=DataLoader(), sources=[str(path)])


def test_servers_volumes_and_rings(tmp_path: Path) -> None:
    inventory = load(tmp_path, names={"MTFS2": "fs2.example.org"})
    groups = {name: [host.name for host in inventory.groups[name].get_hosts()] for name in ("file_servers", "rings")}
    assert groups == {"file_servers": ["fs1", "fs2.example.org", "fs3"], "rings": ["npr", "mat"]}
    fs1, fs2 = (inventory.get_host(name).vars for name in ("fs1", "fs2.example.org"))
    assert fs1["isb_volumes"] == [
        {"name": "e", "serial": "600a098038303053", "drive": "E"},
        {"name": "f", "serial": "600a098038303054", "drive": "F"},
    ]
    assert (fs1["isb_ring"], fs2["isb_ring"], fs2["isb_mbf_name"]) == ("npr", "npr", "MTFS2")


def test_a_serial_in_hex_of_its_digits_is_decoded(tmp_path: Path) -> None:
    serial = "60a98000486e542d4f5a2f6f43345a31"
    written = serial.upper().encode().hex().upper()
    assert written.startswith("3630")
    (tmp_path / "mbf.txt").write_text(f"FS1:FS1 E={written}|,F=600A098038303053|,\n")
    inventory = load(tmp_path, rings={"npr": {"census_file": "mbf.txt"}})
    volumes = inventory.get_host("fs1").vars["isb_volumes"]
    assert [volume["serial"] for volume in volumes] == [serial, "600a098038303053"]
    hostvars = {"npr": {}, "fs1": inventory.get_host("fs1").vars}
    drives = [drive.public() for drive in parse_census((tmp_path / "mbf.txt").read_text()).drives]
    assert census_problems("npr", drives, ["fs1"], hostvars) == []
    assert len(inventory_problems(["fs1"], {**hostvars, "npr": {"isb_drivers": [{"name": "mbf"}]}}, ["npr"])) == 0


def test_what_is_ignored_is_left_out_here_and_in_preflight(tmp_path: Path) -> None:
    inventory = load(tmp_path, ignore=["FS1:E", "MTFS2"])
    assert [host.name for host in inventory.groups["file_servers"].get_hosts()] == ["fs1", "fs3"]
    assert [volume["name"] for volume in inventory.get_host("fs1").vars["isb_volumes"]] == ["f"]
    assert inventory.get_host("npr").vars["isb_census_ignore"] == ["FS1:E", "MTFS2"]


def test_a_census_made_now(tmp_path: Path) -> None:
    source = Path(__file__).parents[1] / "quiesce/mbf_stand_in.py"
    program = tmp_path / "mbf"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -I -S {source} "$@"\n')
    program.chmod(0o755)
    (tmp_path / "plan.json").write_text(json.dumps({}))
    ring = {"executable": str(program), "intermediaries": ["here"], "user": "backup", "password": "x"}
    inventory = load(tmp_path, rings={"npr": {**ring, "on_exposed_password": "warn"}}, serial_from="serial")
    assert [host.name for host in inventory.groups["file_servers"].get_hosts()] == ["fs1", "fs2"]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"rings": {"npr": {"census_file": "none.txt"}}},
            "census of ring npr cannot be used: [Errno 2] No such file",
        ),
        ({"rings": {"npr": {}}}, "set its 'census_file'"),
        ({"rings": {"npr": {"executable": "/x", "intermediaries": ["a"]}}}, "'user' is required"),
        ({"serial_from": "wwn"}, "the drive FS1:E has no wwn in the census"),
        (
            {"rings": {"npr": {"census_file": "census-npr.txt"}, "mat": {"census_file": "census-npr.txt"}}},
            "the server FS1 is in the census of ring npr too",
        ),
    ],
)
def test_a_census_that_is_of_no_use_stops(
    tmp_path: Path, options: dict[str, Any], text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(AnsibleError, match="failed to parse inventory source"):
        load(tmp_path, **options)
    assert text in " ".join(capfd.readouterr().err.split())


def test_the_census_of_the_lab_is_what_the_lab_makes(project_root: Path, tmp_path: Path) -> None:
    hosts = yaml.safe_load((project_root / "lab/roles/lab/defaults/main.yml").read_text())
    inventory = InventoryManager(loader=DataLoader(), sources=[str(project_root / "inventories/lab_mbf")])
    made = {
        host["name"]: [volume["serial"] for volume in host["volumes"] if volume["filesystem"] != "ntfs"]
        for host in hosts["lab_hosts"]
        if host.get("volumes")
    }
    servers = inventory.groups["file_servers"].get_hosts()
    assert {host.name: [v["serial"] for v in host.vars["isb_volumes"]] for host in servers} == made
    rings = {ring: [host.name for host in servers if host.vars["isb_ring"] == ring] for ring in hosts["lab_rings"]}
    assert rings == hosts["lab_rings"]
