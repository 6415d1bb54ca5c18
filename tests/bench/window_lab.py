# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts whose freeze window is measured: the lab itself, and many light servers made by the lab's own program."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
LABTOOL = ROOT / "lab/roles/lab/files/labtool"
DEFAULTS = ROOT / "lab/roles/lab/defaults/main.yml"
POOL = "/srv/pool"
#: MiB; ext4 needs little.
VOLUME_SIZE = 16
POOL_SIZE = 2048


class Servers(t.Protocol):
    """Servers that can be started, measured and removed again."""

    name: str
    folder: Path
    inventory: Path

    def start(self) -> None: ...

    def stop(self) -> None: ...


class RealLab:
    """The lab as it is: three servers with databases under load, ext4 and xfs, five LUNs."""

    name = "3"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.inventory = ROOT / "inventories/lab"

    def start(self) -> None:
        self._play("present")

    def stop(self) -> None:
        self._play("absent")

    def _play(self, state: str) -> None:
        options = ["-e", f"lab_dir={self.folder}", "-e", f"lab_state={state}", "-e", "lab_profile=namespaces"]
        run(["ansible-playbook", str(ROOT / "lab/lab.yml"), *options], self.folder)


class LightServers:
    """``count`` servers, each a host with its own sshd and one small ext4 LUN; no databases and no load."""

    def __init__(self, folder: Path, count: int) -> None:
        self.name = str(count)
        self.folder = folder
        self.inventory = folder / "inventory.json"
        self.servers = {f"w{number:02d}": f"6f70656e697362{number:04x}" for number in range(1, count + 1)}

    def start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        document = self.folder / "lab.json"
        document.write_text(json.dumps(self._document()))
        self.inventory.write_text(json.dumps(self._inventory()))
        for stage in ("hosts", "storage"):
            run([sys.executable, str(LABTOOL), stage, str(document)], self.folder)

    def stop(self) -> None:
        run([sys.executable, str(LABTOOL), "remove", str(self.folder)], self.folder)

    def _document(self) -> dict[str, t.Any]:
        """What the lab's program is to make; its document of the whole lab has the same form."""
        volume = {"name": "m", "mount": "/srv/m", "filesystem": "ext4", "size": VOLUME_SIZE}
        hosts: list[dict[str, t.Any]] = [
            {"name": name, "kind": "file_server", "volumes": [{**volume, "serial": serial}]}
            for name, serial in self.servers.items()
        ]
        return {
            "folder": str(self.folder),
            "profile": "namespaces",
            "hosts": [*hosts, {"name": "storage1", "kind": "storage"}],
            "pool_size": POOL_SIZE,
            "gtm_dist": yaml.safe_load(DEFAULTS.read_text())["lab_gtm_dist"],
            "files": str(LABTOOL.parent),
            "load": {"running": False, "local_rate": 1, "cross_rate": 1, "port": 0, "keep": 0, "records": 0},
        }

    def _inventory(self) -> dict[str, t.Any]:
        return {
            "all": {
                "vars": {
                    "ansible_ssh_common_args": f"-F {self.folder}/ssh_config",
                    "ansible_control_path_dir": f"{self.folder}/cp",
                    "ansible_python_interpreter": "/usr/bin/python3",
                },
                "children": {
                    "file_servers": {
                        "hosts": dict.fromkeys(self.servers, {}),
                        "vars": {"isb_drivers": [{"name": "filesystem", "mounts": ["/srv/m"]}]},
                    },
                    "storage_hosts": {
                        "hosts": {"storage1": {}},
                        "vars": {
                            "snapshot_btrfs_subvolume": f"{POOL}/luns",
                            "snapshot_directory": f"{POOL}/snapshots",
                        },
                    },
                },
            }
        }


def run(command: list[str], folder: Path) -> None:
    """Run a command.  Raises SystemExit with the end of its output where it fails."""
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed for {folder}:\n{done.stdout[-4000:]}")
