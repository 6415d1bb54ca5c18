# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a later phase would refuse of an inventory is refused by its check: names and addresses."""

from __future__ import annotations

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.control import answers
from ansible_collections.openisb.backup.plugins.module_utils.control.inventory import A_DRILL, inventory_problems
from ansible_collections.openisb.backup.plugins.module_utils.host import nbd_addresses
from ansible_collections.openisb.backup.plugins.module_utils.luns import errors as luns_errors
from ansible_collections.openisb.backup.plugins.module_utils.luns import names as luns_names
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.volume import check_volume, volume_folder
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import names

GOOD = ["fs1", "FS1", "1", "a.b.example.org", "a_b-c", "a" * 60]
ODD = [
    "",
    " ",
    "_fs1",
    ".fs1",
    "-fs1",
    "fs1\n",
    "f s1",
    "fs/1",
    "fs:1",
    "fs%1",
    "fs~1",
    "fs@1",
    "fs+1",
    "größe",
    "fs１",
]
REFUSED = (errors.InvalidValue, answers.AnswerError, luns_errors.LunError)
LONG = ["a" * 95, "a" * 101, "a" * 300]


def problems(server, volume):
    volumes = [{"name": volume, "serial": "6000000000000001", "mount": "/srv/m"}]
    hosts = {server: {"isb_volumes": volumes, "isb_drivers": [{"name": "filesystem"}]}}
    return inventory_problems([server], hosts)


def names_made_of(server, volume):
    """Raise InvalidValue, AnswerError or LunError for what later phases would refuse of a server and a volume."""
    check_volume(f"{server}/{volume}")
    if f"{server}/{volume}".partition("/")[0] != server:
        raise errors.InvalidValue(server, "the server of the saveset would be another one", "")
    names.kind_of(f"savesets/{volume_folder(f'{server}/{volume}')}/20261123T021503.250000Z-{'0' * 32}")
    luns_names.checked(f"{A_DRILL}.{server}.{volume}")
    answers.nbd_address(
        {"export": {"port": 1, "name": f"{A_DRILL}.{server}.{volume}"}}, {"address": "storage1", "tls": True}
    )


@pytest.mark.parametrize("server", GOOD)
@pytest.mark.parametrize("volume", ["m", "Files_1-a", "v" * 20])
def test_names_that_every_phase_takes(server, volume):
    names_made_of(server, volume)
    assert problems(server, volume) == []


@pytest.mark.parametrize("name", ODD + LONG)
def test_a_servers_name_that_a_later_phase_refuses_is_refused_before(name):
    with pytest.raises(REFUSED):
        names_made_of(name, "volume")
    (text,) = problems(name, "volume")
    assert "cannot name a server" in text and "ansible_host" in text or "is too long a name" in text


@pytest.mark.parametrize("name", [*ODD, *LONG, "a.b"])
def test_a_volumes_name_that_a_later_phase_refuses_is_refused_before(name):
    if name != "a.b":  # which the engine would take
        with pytest.raises(REFUSED):
            names_made_of("server", name)
    (text,) = problems("server", name)
    assert "cannot name a volume" in text


@pytest.mark.parametrize("lengths", [(36, 62), (37, 63), (99, 1), (98, 1), (60, 40)])
def test_names_that_are_too_long_together(lengths):
    server, volume = "s" * lengths[0], "v" * lengths[1]
    try:
        names_made_of(server, volume)
        refused = False
    except REFUSED:
        refused = True
    assert bool(problems(server, volume)) == refused


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("storage1", ""),
        ("Storage_1.example.org", ""),
        ("192.0.2.7", ""),
        ("127.0.0.1", ""),
        ("fd00::b", ""),
        ("::1", ""),
        ("2001:DB8::7", ""),
        ("fe80::1%eth0", "a link-local address"),
        ("fe80::1", "a link-local address"),
        ("fd00::b%eth0", "a link-local address"),
        ("[fd00::b]", "without brackets"),
        ("[fd00::b]:10809", "without brackets, port or user"),
        ("192.0.2.7:10809", "without brackets, port or user"),
        ("root@storage1", "without brackets, port or user"),
        ("storage 1", "neither a host name nor an IPv4 or IPv6 address"),
        ("storage1/x", "neither a host name nor an IPv4 or IPv6 address"),
        ("-storage1", "neither a host name nor an IPv4 or IPv6 address"),
        ("", "neither a host name nor an IPv4 or IPv6 address"),
        ("0.0.0.0", "the address of no host"),
        ("::", "the address of no host"),
        ("ff02::1", "the address of no host"),
    ],
)
def test_an_address_that_nobody_could_connect_to_is_refused(address, says):
    hosts = {"storage1": {"openisb_data_address": address}}
    found = inventory_problems([], hosts, groups={"storage_hosts": ["storage1"], "backup_servers": ["storage1"]})
    if says:
        (text,) = found
        assert text.startswith("storage1: ") and says in text and "set openisb_data_address" in text
    else:
        assert found == []
        nbd_addresses.check_of_host(nbd_addresses.address_of(address, 40001, "e", True), address)


@pytest.mark.parametrize("group", ["storage_hosts", "backup_servers", "dr_hosts"])
def test_the_address_is_the_one_that_hosts_are_given(group):
    def found(variables, host="s"):
        return inventory_problems([], {host: variables}, groups={group: [host]})

    for variables in [{"ansible_host": "[::1]"}, {"openisb_data_address": "[::1]", "ansible_host": "h"}]:
        assert "'[::1]'" in found(variables)[0]
    assert "'s 1'" in found({}, "s 1")[0]
    assert found({"ansible_host": "fe80::1%eth0", "openisb_data_address": "s"}) == []
