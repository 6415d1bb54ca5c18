# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the lab makes is what its inventories say: hosts, LUNs, and the id of the lab."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from ansible.inventory.manager import InventoryManager
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar
from ansible.vars.manager import VariableManager

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = yaml.safe_load((ROOT / "lab/roles/lab/defaults/main.yml").read_text())
HOSTS = {host["name"]: host for host in DEFAULTS["lab_hosts"]}
GROUPS = {
    "file_servers": {"fs1", "fs2", "fs3"},
    "storage_hosts": {"storage1"},
    "backup_servers": {"backup1"},
    "listeners": {"backup1"},
    "dr_hosts": {"dr1"},
}


class Inventory:
    """An inventory of the lab, as Ansible reads it."""

    def __init__(self, name: str, lab_dir: Path) -> None:
        loader = DataLoader()
        self.loader = loader
        self.manager = InventoryManager(loader=loader, sources=[str(ROOT / "inventories" / name)])
        self.variables = VariableManager(loader=loader, inventory=self.manager)
        self.extra = {"lab_dir": str(lab_dir)}

    def value(self, host: str, name: str) -> Any:
        """A variable of a host with its templates worked out."""
        known = {**self.variables.get_vars(host=self.manager.get_host(host)), **self.extra}
        return Templar(loader=self.loader, variables=known).template(known[name])


@pytest.fixture
def lab_dir(tmp_path: Path) -> Path:
    """A folder reached by a link: the lab's id follows from where it really is."""
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/passphrase").write_text("secret\n")
    return tmp_path / "link"


@pytest.fixture(params=["lab", "lab_plain", "lab_mbf"])
def inventory(request: pytest.FixtureRequest, lab_dir: Path) -> Inventory:
    """Each inventory in turn."""
    return Inventory(request.param, lab_dir)


def test_groups(inventory: Inventory) -> None:
    # In the lab with rings, each of them has a name of its own for the storage host.
    rings = {host.name for host in inventory.manager.get_hosts() if "rings" in {group.name for group in host.groups}}
    storage = {f"storage1-{ring}" for ring in rings} or GROUPS["storage_hosts"]
    for name, hosts in {**GROUPS, "storage_hosts": storage}.items():
        assert {host.name for host in inventory.manager.get_hosts(name)} == hosts
    assert {host.name for host in inventory.manager.get_hosts("lab")} == set(HOSTS) - {"storage1"} | storage | rings


def test_the_id_is_that_of_the_lab(inventory: Inventory, labtool: dict[str, ModuleType], lab_dir: Path) -> None:
    assert inventory.value("fs1", "lab_id") == labtool["spec"].lab_id(lab_dir.resolve())


@pytest.mark.parametrize("server", sorted(GROUPS["file_servers"]))
def test_volumes_are_those_that_the_lab_makes(lab_dir: Path, server: str) -> None:
    made = [{key: volume[key] for key in ("name", "serial", "mount")} for volume in HOSTS[server]["volumes"]]
    inventory = Inventory("lab", lab_dir)
    assert inventory.value(server, "isb_volumes") == made
    drivers = {driver["name"]: driver for driver in inventory.value(server, "isb_drivers")}
    ntfs = [volume["mount"] for volume in HOSTS[server]["volumes"] if volume["filesystem"] == "ntfs"]
    assert drivers["filesystem"]["mounts"] == [volume["mount"] for volume in made if volume["mount"] not in ntfs]
    assert [driver["freeze"][1] for name, driver in drivers.items() if name == "command"] == ntfs


@pytest.mark.parametrize("server", sorted(GROUPS["file_servers"]))
def test_the_plain_volume_is_the_database(lab_dir: Path, server: str) -> None:
    inventory = Inventory("lab_plain", lab_dir)
    folder = lab_dir.resolve() / "hosts" / server / "srv/m"
    serial = next(volume["serial"] for volume in HOSTS[server]["volumes"] if volume["name"] == "m")
    assert inventory.value(server, "isb_volumes") == [
        {"name": "m", "serial": serial, "path": str(folder / "mumps.dat")}
    ]
    assert [driver["gbldir"] for driver in inventory.value(server, "isb_drivers")] == [str(folder / "mumps.gld")]


def test_serials_are_unique() -> None:
    serials = [volume["serial"] for host in HOSTS.values() for volume in host.get("volumes", [])]
    assert len(set(serials)) == len(serials) > 3
    assert all(len(serial) == 16 and set(serial) <= set("0123456789abcdef") for serial in serials)


def test_the_passphrase_is_the_labs_own_or_yours(inventory: Inventory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENISB_PASSPHRASE", raising=False)
    assert inventory.value("backup1", "repository_passphrase") == "secret"
    monkeypatch.setenv("OPENISB_PASSPHRASE", "mine")
    assert inventory.value("backup1", "repository_passphrase") == "mine"


def test_ssh_options_name_the_real_folder(lab_dir: Path) -> None:
    arguments = Inventory("lab", lab_dir).value("fs1", "ansible_ssh_common_args")
    assert arguments == f"-F {lab_dir.resolve()}/ssh_config"
