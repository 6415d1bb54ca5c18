# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's network: a bridge on the machine, and one pair of interfaces from it to each host.

Subnets come from 198.18.0.0/15, which is reserved for tests of network devices and so should be unused (RFC 2544).
"""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Iterator

from shell import LabError, run
from spec import Host, Lab

RANGE = ipaddress.IPv4Network("198.18.0.0/15")
LONGEST_PREFIX = 26


class Network:
    """The subnet of one lab, and its interfaces."""

    def __init__(self, lab: Lab, subnet: ipaddress.IPv4Network) -> None:
        self.lab = lab
        self.subnet = subnet
        self.bridge = bridge_name(lab)

    @property
    def machine(self) -> str:
        """The machine's address in the lab."""
        return str(self.subnet[1])

    def address(self, host: Host) -> str:
        """Return the address of a host."""
        return str(self.subnet[1 + host.number])

    def interface(self, host: Host) -> str:
        """Return the machine's end of a host's pair. Interface names have at most 15 characters."""
        return f"{self.bridge}-{host.number}"

    def hardware_address(self, number: int) -> str:
        """Return the MAC address of a host, or of the bridge (number 0).

        It is constant, so that cached entries stay valid when a host and its interface are recreated.
        """
        lab_id = self.lab.id
        return f"02:{lab_id[0:2]}:{lab_id[2:4]}:{lab_id[4:6]}:{number >> 8:02x}:{number & 0xFF:02x}"

    def connect(self, host: Host, pid: int) -> bool:
        """Give the host with this first process its interface; return whether anything was changed."""
        if self.interface(host) in _interfaces() and self._has_address(host, pid):
            return False
        _delete(self.interface(host))
        peer = ["name", "eth0", "address", self.hardware_address(host.number), "netns", str(pid)]
        run(["ip", "link", "add", self.interface(host), "type", "veth", "peer", *peer])
        run(["ip", "link", "set", self.interface(host), "master", self.bridge, "up"])
        commands = f"link set lo up\naddress add {self._own(host)} dev eth0\nlink set eth0 up\n"
        run(["nsenter", "--target", str(pid), "--net", "ip", "-batch", "-"], text=commands)
        return True

    def _has_address(self, host: Host, pid: int) -> bool:
        shown = json.loads(run(["nsenter", "--target", str(pid), "--net", "ip", "-json", "address"]))
        addresses = [each for link in shown for each in link.get("addr_info", [])]
        return any(f"{each.get('local')}/{each.get('prefixlen')}" == self._own(host) for each in addresses)

    def _own(self, host: Host) -> str:
        return f"{self.address(host)}/{self.subnet.prefixlen}"


def prefix(lab: Lab) -> int:
    """Return the length of the prefix of a subnet that has room for the machine and all hosts."""
    addresses = len(lab.hosts) + 3  # the subnet's own, the machine's, and that of broadcasts
    return min(LONGEST_PREFIX, 32 - (addresses - 1).bit_length())


def bridge_name(lab: Lab) -> str:
    """Return the name of the lab's bridge; its other interfaces begin with this name."""
    return f"isb{lab.id}"


def present(lab: Lab) -> tuple[Network, list[str]]:
    """Create the lab's network if it is missing; return it and the changes."""
    found = existing(lab)
    if found:
        return found, []
    _delete(bridge_name(lab))
    network = Network(lab, _free_subnet(lab))
    run(["ip", "link", "add", network.bridge, "address", network.hardware_address(0), "type", "bridge"])
    run(["ip", "address", "add", f"{network.machine}/{network.subnet.prefixlen}", "dev", network.bridge])
    run(["ip", "link", "set", network.bridge, "up"])
    return network, [f"bridge {network.bridge} with subnet {network.subnet}"]


def existing(lab: Lab) -> Network | None:
    """Return the lab's existing network, if any."""
    for link in json.loads(run(["ip", "-json", "-4", "address"])):
        if link.get("ifname") == bridge_name(lab) and "UP" in link.get("flags", []):
            for each in link["addr_info"]:
                subnet = ipaddress.IPv4Network(f"{each['local']}/{each['prefixlen']}", strict=False)
                if subnet.prefixlen == prefix(lab) and subnet.subnet_of(RANGE):
                    return Network(lab, subnet)
    return None


def absent(lab: Lab) -> list[str]:
    """Remove every interface of the lab; return what was removed."""
    names = [name for name in _interfaces() if name == bridge_name(lab) or name.startswith(bridge_name(lab) + "-")]
    for name in names:
        _delete(name)
    return [f"interface {name}" for name in names]


def _free_subnet(lab: Lab) -> ipaddress.IPv4Network:
    """Return the first unused subnet, starting with the one that the lab's id selects."""
    used, length = list(_used()), prefix(lab)
    count = 1 << (length - RANGE.prefixlen)
    for step in range(count):
        number = (int(lab.id, 16) + step) % count
        start = int(RANGE.network_address) + (number << (32 - length))
        subnet = ipaddress.IPv4Network((start, length))
        if not any(subnet.overlaps(each) for each in used):
            return subnet
    raise LabError(f"every subnet of {RANGE} overlaps with a route or address of this machine: free one of /{length}")


def _used() -> Iterator[ipaddress.IPv4Network]:
    """Yield networks that the machine has an address in or a route to, except the default route."""
    for route in json.loads(run(["ip", "-json", "-4", "route", "show", "table", "all"])):
        if route["dst"] != "default":
            yield ipaddress.IPv4Network(route["dst"], strict=False)


def _interfaces() -> set[str]:
    return {link["ifname"] for link in json.loads(run(["ip", "-json", "link"]))}


def _delete(name: str) -> None:
    if name in _interfaces():
        run(["ip", "link", "delete", name])
