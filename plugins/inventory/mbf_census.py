# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: mbf_census
short_description: File servers and rings from the census of MEDITECH's MBF
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Makes each server in a census a host of the group C(file_servers) with C(isb_ring), C(isb_mbf_name) and
    C(isb_volumes) (name, serial and C(drive)), and each ring a host of the group C(rings).
  - A census is a file written by C(playbooks/mbf_census.yml), or comes from running MBF on the controller. In a folder
    of inventories, name such files C(*.txt), which Ansible does not read as inventories.
  - Everything else that a run needs to know about these hosts is in C(host_vars) and C(group_vars), as for any host.
  - The file must be named C(mbf_census.yml), or end with C(.mbf_census.yml).
options:
  plugin:
    description: The name of this plugin.
    required: true
    choices: [openisb.backup.mbf_census]
  rings:
    description:
      - For each ring, by name, where its census comes from. Either C(census_file), relative to this file, or the
        options of M(openisb.backup.mbf) for a census that is made now (C(executable), C(intermediaries), C(user),
        C(password_file) and so on; C(timeout) is 30 s).
    type: dict
    required: true
  names:
    description:
      - For each server, by its name in the census, its name in the inventory, if that is not the former in lowercase.
    type: dict
    default: {}
  ignore:
    description: Servers and drives (C(SERVER:DRIVE)) to leave out, as in the rings' C(isb_census_ignore).
    type: list
    elements: str
    default: []
  serial_from:
    description:
      - Which of the two in the census is the serial by which servers and storage find the LUN.
      - Some versions of MBF print the hex of a serial that itself consists of hex digits (C(3630...) is C(60...)). It
        is then decoded.
    type: str
    choices: [serial, wwn]
    default: serial
"""

EXAMPLES = r"""
# inventories/hospital/mbf_census.yml
plugin: openisb.backup.mbf_census
rings:
  npr:
    census_file: census-npr.txt
  mat:
    census_file: census-mat.txt
names:
  MTFS1: fs1.example.org
"""

import os

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin
from ansible_collections.openisb.backup.plugins.module_utils.control.census import lun_serial
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import HostError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf import exposure
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.answers import parse_census
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.client import Client
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.mbf.settings import REFUSE, Settings

TIMEOUT = 30.0
FILE_NAMES = ("mbf_census.yml", "mbf_census.yaml")


def volumes_of(drives, serial_from):
    """The volumes of each server, as in the inventory. ``drives``: those of a census. Raises ValueError."""
    servers = {}
    for drive in drives:
        serial = getattr(drive, serial_from)
        if not serial:
            raise ValueError(f"the drive {drive.server}:{drive.name} has no {serial_from} in the census")
        volume = {"name": drive.name.lower().replace("$", "_"), "serial": lun_serial(serial), "drive": drive.name}
        servers.setdefault(drive.server, []).append(volume)
    return servers


def is_ignored(drive, ignored):
    """Whether a drive, or its server, is to be left out."""
    return bool({f"{drive.server}:{drive.name}".casefold(), drive.server.casefold()} & ignored)


def census_of(ring, source, folder):
    """A ring's census, from its file or from MBF. Raises HostError, OSError and ValueError."""
    if "census_file" in source:
        with open(os.path.join(folder, source["census_file"]), encoding="utf-8") as stream:
            census = parse_census(stream.read())
        if census.unreadable:
            raise ValueError(f"'{census.unreadable[0]}' cannot be read")
    else:
        census = ask(ring, source)
    if not census.drives:
        raise ValueError("it has no drive")
    return census


def ask(ring, source):
    """A ring's census from MBF on this machine. Raises HostError, OSError and ValueError."""
    if not {"executable", "intermediaries"} <= set(source):
        raise ValueError("set its 'census_file', or 'executable' and 'intermediaries'")
    settings = Settings(source)
    exposed = exposure.problems(settings)
    if exposed and exposure.check_policy(source.get("on_exposed_password", REFUSE)) == REFUSE:
        raise ValueError("; ".join(exposed))
    return Client(settings).census(float(source.get("timeout", TIMEOUT)))[0]


class InventoryModule(BaseInventoryPlugin):
    """Hosts from a census."""

    NAME = "openisb.backup.mbf_census"

    def verify_file(self, path):
        """Accept files with the plugin's name."""
        name = os.path.basename(path)
        return super().verify_file(path) and (name in FILE_NAMES or name.endswith(tuple("." + n for n in FILE_NAMES)))

    def parse(self, inventory, loader, path, cache=True):
        """Add the hosts of all rings."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        for group in ("rings", "file_servers"):
            inventory.add_group(group)
        for ring, source in self.get_option("rings").items():
            try:
                self._add_ring(ring, census_of(ring, dict(source or {}), os.path.dirname(path)).drives)
            except (HostError, OSError, ValueError) as error:
                raise AnsibleParserError(f"{path}: the census of ring {ring} cannot be used: {error}") from error

    def _add_ring(self, ring, drives):
        ignored = {entry.casefold() for entry in self.get_option("ignore")}
        self.inventory.add_host(ring, group="rings")
        if ignored:
            self.inventory.set_variable(ring, "isb_census_ignore", self.get_option("ignore"))
        kept = [drive for drive in drives if not is_ignored(drive, ignored)]
        for server, volumes in volumes_of(kept, self.get_option("serial_from")).items():
            host = self.get_option("names").get(server, server.lower())
            known = self.inventory.hosts.get(host)
            other = known.vars.get("isb_ring") if known else None
            if other not in (None, ring):
                raise ValueError(f"the server {server} is in the census of ring {other} too")
            self.inventory.add_host(host, group="file_servers")
            for name, value in {"isb_ring": ring, "isb_mbf_name": server, "isb_volumes": volumes}.items():
                self.inventory.set_variable(host, name, value)
