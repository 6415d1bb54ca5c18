# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A site as an engineer sets it up: inventories/example with names, serials and mounts filled in, and nothing else.

The lab's hosts are behind it, and nothing of the lab's inventory is.
"""

from __future__ import annotations

import os
import re
import secrets
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from lab import Lab

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 600  # seconds

#: The host of the lab behind each host of the example.
BEHIND = {
    "fs1.example.org": "fs1",
    "fs2.example.org": "fs3",
    "m.example.org": "fs2",
    "storage.example.org": "storage1",
    "backup.example.org": "backup1",
    "dr.example.org": "dr1",
}
#: What the engineer finds out about each volume, by server.
SERIALS = {
    "fs1.example.org": "6f70656e69736212",
    "fs2.example.org": "6f70656e69736232",
    "m.example.org": "6f70656e69736221",
}
#: Where those servers have their data that freeze a filesystem alone.
DATA = "/srv/files"
#: What ansible-core says of modules of other collections. Ours have nothing of it (test_dependencies.py).
OF_OTHERS = re.compile(r"Importing 'to_\w+' from 'ansible\.module_utils\._text'|Passing `warnings` to `exit_json`")
#: Folders of hosts that a first set-up finds empty.
STATE = ("/var/lib/openisb", "/srv/backup", "/srv/restored", "/srv/standby")


class FirstSite:
    """An inventory made from the example, and who runs playbooks with it; ``folder`` is short, as sockets are in it."""

    def __init__(self, folder: Path, lab: Path, programs: Path) -> None:
        self.folder, self.lab, self.programs = folder, lab, programs
        self.passphrase = secrets.token_urlsafe(24)
        self.inventory, self.connections = folder / "mysite", folder / "connections.yml"
        (folder / "home").mkdir()
        shutil.copytree(ROOT / "inventories/example", self.inventory)
        hosts = self.inventory / "hosts.yml"
        hosts.write_text(yaml.safe_dump(filled_in(yaml.safe_load(hosts.read_text())), sort_keys=False))
        self.connections.write_text(yaml.safe_dump({"all": self._connections()}))
        self._begin_anew()

    def _connections(self) -> dict[str, Any]:
        """How Ansible reaches the hosts, as it is written for any set of machines."""
        text = (self.lab / "ssh_config").read_text()
        addresses = dict(re.findall(r"^Host (\S+)\n\s+HostName (\S+)$", text, re.MULTILINE))
        return {
            "hosts": {name: {"ansible_host": addresses[host]} for name, host in BEHIND.items()},
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": f"{self.lab}/ssh/id_ed25519",
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={shlex.quote(str(self.lab))}/ssh/known_hosts",
            },
        }

    def _begin_anew(self) -> None:
        """Nothing of an earlier site is left on the hosts."""
        for host in set(BEHIND.values()):
            self.on(host, "rm -rf " + " ".join(f"{path}/*" for path in STATE))

    def on(self, host: str, command: str) -> str:
        """Run a command on a host of the lab; its output. Raises where it fails."""
        return Lab(self.lab).on(host, command, TIMEOUT)

    def environment(self, passphrase: str | None) -> dict[str, str]:
        """Of whoever runs the playbooks: a home, programs, and the passphrase."""
        found = {
            "HOME": str(self.folder / "home"),
            "LANG": "C.UTF-8",
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "ANSIBLE_NOCOLOR": "1",
        }
        return found | ({"OPENISB_PASSPHRASE": passphrase} if passphrase else {})

    def play(self, playbook: str, *options: str, status: int = 0, passphrase: bool = True) -> str:
        """Run a playbook, and return what it says, with one space between words; it must end with ``status``."""
        done = subprocess.run(
            [self.programs / "ansible-playbook", "-i", self.inventory, "-i", self.connections, playbook, *options],
            cwd=self.where(),
            env=self.environment(self.passphrase if passphrase else None),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        said = done.stdout + done.stderr
        assert done.returncode == status, f"{playbook} ended with {done.returncode}:\n{said}"
        deprecated = [
            line for line in said.splitlines() if "[DEPRECATION WARNING]" in line and not OF_OTHERS.search(line)
        ]
        assert deprecated == []
        return " ".join(said.split())

    def where(self) -> Path:
        """The folder that playbooks are run in: the checkout, with its ansible.cfg."""
        return ROOT


class InstalledSite(FirstSite):
    """A site whose collection is installed, and that has no ansible.cfg."""

    def __init__(self, folder: Path, lab: Path, programs: Path, collections: Path) -> None:
        self.collections = collections
        (folder / "none.cfg").touch()  # without it Ansible would look for another one
        super().__init__(folder, lab, programs)

    def where(self) -> Path:
        """A folder that has nothing to do with any checkout."""
        return self.folder

    def environment(self, passphrase: str | None) -> dict[str, str]:
        """With only those collections that were installed, and no settings, not even this machine's."""
        return super().environment(passphrase) | settings(self.folder, self.collections)


def settings(folder: Path, collections: Path) -> dict[str, str]:
    """What keeps Ansible from other collections and from every ansible.cfg; ``folder`` has an empty none.cfg."""
    return {
        "ANSIBLE_CONFIG": str(folder / "none.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(collections),
        "ANSIBLE_COLLECTIONS_SCAN_SYS_PATH": "false",
    }


def filled_in(example: dict[str, Any]) -> dict[str, Any]:
    """The example with what its comments ask for: the servers that there are, their volumes, and two folders."""
    servers = example["file_servers"]["hosts"]
    example["file_servers"]["hosts"] = {name: servers[name] for name in SERIALS}
    for name, serial in SERIALS.items():
        (volume,) = servers[name]["isb_volumes"]
        volume["serial"] = serial
        if "isb_drivers" not in servers[name]:
            volume["mount"] = DATA
            volume["idr_target"] = f"/srv/standby/{name}.img"
    (driver,) = example["file_servers"]["vars"]["isb_drivers"]
    driver["mounts"] = [DATA]
    # The lab's hosts reach no package index.
    example["backup_servers"]["hosts"]["backup.example.org"]["repository_wheels"] = str(ROOT / "build/wheels")
    return example
