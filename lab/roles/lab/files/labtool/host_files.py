# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of each host, and those that let the controller reach the hosts."""

from __future__ import annotations

import json
from pathlib import Path

from network import Network
from shell import run
from spec import SHARED_STORAGE, Host, Lab

SSHD_CONFIG = """\
# Written by the lab.
ListenAddress {address}
HostKey /etc/ssh/ssh_host_ed25519_key
AuthorizedKeysFile /etc/ssh/authorized_keys
PidFile /run/sshd.pid
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
UseDNS no
PrintMotd no
# The tasks of all servers may be delegated to one host, each in a session of the same connection.
MaxSessions 1000
MaxStartups 1000
# The keys are below the checkout, whose folders may be group-writable.
StrictModes no
Subsystem sftp internal-sftp
"""

# The machine's own profile may be slow (pyenv: 170 ms per command); this one is minimal.
PROFILE = """\
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
PS1='\\u@\\h:\\w# '
export PATH PS1
"""

PROFILE_DATABASE = """\
gtm_dist={gtm_dist}
gtmgbldir=/srv/m/mumps.gld
gtmroutines="/lab/m/obj(/lab/m/src) $gtm_dist/libgtmutil.so $gtm_dist"
PATH=$PATH:$gtm_dist
export gtm_dist gtmgbldir gtmroutines PATH
"""

LIGHT_INVENTORY = "light.json"
BACKUP_INVENTORY = "backup.json"

FOLDERS = {
    "mnt": 0o755,
    "etc": 0o755,
    "etc/ssh": 0o755,
    "root": 0o700,
    "srv": 0o755,
    "tmp": 0o1777,
    "var": 0o755,
    "var/cache": 0o755,
    "var/lib": 0o755,
    "var/lib/openisb": 0o700,
    "var/log": 0o755,
    "var/tmp": 0o1777,
}


def make_folders(lab: Lab, host: Host) -> list[str]:
    """Create a host's folders on the machine."""
    changes = []
    base = lab.host_folder(host)
    for name, mode in {"": 0o755, **FOLDERS}.items():
        path = base / name
        if not path.is_dir():
            path.mkdir(parents=True)
            path.chmod(mode)
            changes.append(f"folder {path}")
    if host.kind == "storage":
        (base / "srv/pool").mkdir(exist_ok=True)
    for volume in host.volumes:
        (base / volume.mount.lstrip("/")).mkdir(exist_ok=True)
    return changes


def make_keys(lab: Lab) -> list[str]:
    """Generate the controller's key, and one for each host."""
    changes = _make_key(lab.folder / "ssh/id_ed25519", f"openisb-lab-{lab.id}")
    public = (lab.folder / "ssh/id_ed25519.pub").read_text(encoding="utf-8")
    for host in lab.hosts:
        folder = lab.host_folder(host) / "etc/ssh"
        changes += _make_key(folder / "ssh_host_ed25519_key", host.name)
        changes += write(folder / "authorized_keys", public)
    return changes


def write_files(lab: Lab, network: Network) -> list[str]:
    """Write everything that contains an address: the hosts' files and the controller's SSH settings."""
    lines = ["127.0.0.1 localhost", f"{network.machine} controller"]
    lines += [f"{network.address(host)} {host.name}" for host in lab.hosts]
    changes = []
    for host in lab.hosts:
        base = lab.host_folder(host)
        changes += write(base / "etc/hostname", host.name + "\n")
        changes += write(base / "etc/hosts", "\n".join(lines) + "\n")
        # Only the names above resolve: a lookup of any other fails at once.
        changes += write(base / "etc/resolv.conf", "# No name server in the lab.\n")
        changes += write(base / "etc/ssh/sshd_config", SSHD_CONFIG.format(address=network.address(host)))
        database = PROFILE_DATABASE.format(gtm_dist=lab.gtm_dist) if host.has_database else ""
        changes += write(base / "root/.profile", PROFILE + database)
    changes += write(lab.folder / "ssh/known_hosts", _known_hosts(lab, network))
    changes += write(lab.folder / "ssh_config", _ssh_config(lab, network))
    changes += write(lab.folder / LIGHT_INVENTORY, _light_inventory(lab))
    changes += write(lab.folder / BACKUP_INVENTORY, _backup_inventory(lab))
    return changes


def _light_inventory(lab: Lab) -> str:
    """The inventory of the light servers, which inventories/lab_light lacks because their number is a setting."""
    servers = {
        host.name: {
            "isb_volumes": [
                {"name": volume.name, "serial": volume.serial, "mount": volume.mount} for volume in host.volumes
            ]
        }
        for host in lab.light_servers
    }
    return json.dumps({"file_servers": {"hosts": servers}}, indent=2) + "\n"


def _backup_inventory(lab: Lab) -> str:
    """The inventory of backup servers that share one repository, in addition to that of the lab."""
    variables = {"repository_path": f"{SHARED_STORAGE}/repository", "repository_shared": True}
    servers = {host.name: variables for host in lab.backup_servers}
    return json.dumps({"backup_servers": {"hosts": servers}}, indent=2) + "\n"


def make_shared_storage(lab: Lab) -> list[str]:
    """Create the folder that is a shared storage to the backup servers."""
    if lab.shared_storage.is_dir():
        return []
    lab.shared_storage.mkdir(mode=0o700)
    return [f"folder {lab.shared_storage}"]


def write(path: Path, text: str) -> list[str]:
    """Write a file if its text differs; in place, because a running host has the file itself mounted."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return [f"file {path}"]


def _make_key(path: Path, comment: str) -> list[str]:
    if path.exists():
        return []
    path.parent.mkdir(parents=True, exist_ok=True)
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", str(path)])
    return [f"key {path}"]


def _known_hosts(lab: Lab, network: Network) -> str:
    lines = []
    for host in lab.hosts:
        public = (lab.host_folder(host) / "etc/ssh/ssh_host_ed25519_key.pub").read_text(encoding="utf-8")
        lines.append(f"{network.address(host)} {' '.join(public.split()[:2])}\n")
    return "".join(lines)


def _ssh_config(lab: Lab, network: Network) -> str:
    lines = ["# Written by the lab: ssh -F <this file> fs1"]
    for host in lab.hosts:
        lines += [f"Host {host.name}", f"    HostName {network.address(host)}"]
    lines += [
        "Host *",
        "    User root",
        "    Port 22",
        f'    IdentityFile "{lab.folder}/ssh/id_ed25519"',
        "    IdentitiesOnly yes",
        f'    UserKnownHostsFile "{lab.folder}/ssh/known_hosts"',
        "    StrictHostKeyChecking yes",
        "    ConnectTimeout 10",
        "    ServerAliveInterval 5",
        "    ServerAliveCountMax 3",
        "    LogLevel ERROR",
    ]
    return "\n".join(lines) + "\n"
