# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ways that a run takes after its preflight: they work, or preflight says why not, and nothing is frozen.

Above all those of a login that is not root and becomes root by sudo, with and without a password.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Lab, refused

pytestmark = [pytest.mark.lab, pytest.mark.root]

HOSTS = ("fs1", "fs2", "fs3", "storage1", "backup1", "dr1")
LOGIN, PASSWORD = "operator", "sesame open"

#: The machine's own settings are shown on all hosts: a host gets others over them, until they are taken away again.
SET_UP = """
set -e
mkdir -p /var/login/home
grep -v ^{login}: /etc/passwd > /var/login/passwd
grep -v ^{login}: /etc/shadow > /var/login/shadow
echo '{login}:x:4711:65534::/var/login/home:/bin/bash' >> /var/login/passwd
echo '{login}:{hash}:20000:0:99999:7:::' >> /var/login/shadow
cat > /var/login/sudoers << 'END'
Defaults secure_path="/usr/sbin:/usr/bin:/sbin:/bin"
Defaults use_pty
{login} ALL=(ALL:ALL) {tag}ALL
END
chown -R 4711 /var/login/home
chmod 0600 /var/login/shadow
chmod 0440 /var/login/sudoers
for name in passwd shadow sudoers; do mount --bind /var/login/$name /etc/$name; done
"""
TAKE_AWAY = """
for name in passwd shadow sudoers; do
    while grep -q "/var/login/$name /etc/$name " /proc/self/mountinfo; do umount /etc/$name; done
done
rm -rf /var/login
"""

#: Nobody needs to become root on the controller.
NO_SUDO = """#!/bin/sh
echo "the controller has no sudo: $*" >&2
exit 1
"""


class Site:
    """The lab with other variables of all hosts, as a site's group_vars/all has them."""

    def __init__(self, lab: Lab, folder: Path, variables: dict[str, Any]) -> None:
        self.lab, self.folder = lab, folder
        (folder / "sudo").write_text(NO_SUDO)
        (folder / "sudo").chmod(0o755)
        self.environment = {"PATH": f"{folder}:{os.environ['PATH']}"}
        self.options = ["-i", str(folder / "site.json")]
        self.vary(variables)

    def vary(self, variables: dict[str, Any]) -> None:
        """Have these variables."""
        (self.folder / "site.json").write_text(json.dumps({"all": {"vars": variables}}))

    def play(self, playbook: str, *options: str) -> str:
        """Run a playbook, which must end well; its output."""
        status, output = self.lab.play(playbook, *self.options, *options, environment=self.environment)
        assert status == 0, output
        return output

    def refused(self, *options: str, **more: Any) -> str:
        """Run isb.yml, which must be refused before anything is armed; why."""
        return refused(self.lab, *self.options, *options, environment=self.environment, **more)


def set_up(lab: Lab, tag: str) -> None:
    hashed = subprocess.run(
        ["openssl", "passwd", "-6", "-stdin"], input=PASSWORD, capture_output=True, text=True, check=True
    ).stdout.strip()
    for host in HOSTS:
        lab.on(host, SET_UP.format(login=LOGIN, hash=hashed, tag=tag))


@pytest.fixture(scope="module", params=["NOPASSWD:", ""], ids=["without a password", "with a password"])
def site(lab: Lab, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site with such a login."""
    try:
        set_up(lab, request.param)
        variables: dict[str, Any] = {"ansible_user": LOGIN, "ansible_become": True}
        if not request.param:
            variables["ansible_become_password"] = PASSWORD
        yield Site(lab, tmp_path_factory.mktemp("site"), variables)
    finally:
        for host in HOSTS:
            lab.on(host, TAKE_AWAY)


def nothing_is_left_of_samples(lab: Lab) -> None:
    assert lab.on("storage1", "ls -A /run/openisb/exports 2>/dev/null || true") == ""
    assert lab.on("backup1", "find /run/openisb -name '*.sample*'") == ""
    assert lab.on("backup1", "ls -A /run/openisb/async 2>/dev/null || true") == ""


def test_a_login_that_is_not_root(site: Site, tmp_path: Path) -> None:
    """Everything works: what is set up, backed up, verified and restored."""
    site.play("setup.yml")
    report = tmp_path / "isb.json"
    site.play("isb.yml", "-e", f"isb_report_path={report}")
    found = json.loads(report.read_text())
    assert (found["verdict"], found["exit_status"]) == ("application-consistent", 0)
    site.lab.nothing_is_left()
    nothing_is_left_of_samples(site.lab)
    site.play("verify.yml")
    more = {
        "restore_server": "fs1",
        "restore_volume": "m",
        "restore_host": "dr1",
        "restore_folder": "/var/lib/openisb/restored",
    }
    try:
        site.play("restore.yml", "-e", json.dumps(more))
        assert "fs1-m.img" in site.lab.on("dr1", "ls /var/lib/openisb/restored")
    finally:
        site.lab.on("dr1", "rm -rf /var/lib/openisb/restored")


def test_a_temporary_folder_that_the_login_cannot_use(site: Site) -> None:
    """Only what is asynchronous, and what copies a file, needs it."""
    message = site.refused("-e", "ansible_remote_tmp=/root/.ansible/tmp")
    assert "backup1: a backup could not read from storage1" in message
    assert "/root/.ansible/tmp" in message and LOGIN in message and "ansible_remote_tmp" in message
    nothing_is_left_of_samples(site.lab)


@pytest.mark.parametrize(
    ("address", "cause"),
    [("localhost", "this host cannot connect to it ("), ("192.0.2.1", "cannot listen at 192.0.2.1")],
)
def test_exports_that_cannot_be_reached(lab: Lab, address: str, cause: str) -> None:
    message = refused(lab, host_vars={"storage1": {"openisb_data_address": address}})
    assert "backup1: a backup could not read from storage1" in message
    assert cause in message and "openisb_data_address" in message
    nothing_is_left_of_samples(lab)


#: As busybox has it, which knows no nanoseconds.
PLAIN_DATE = """#!/bin/sh
echo 1796000000.%N
"""


def test_programs_of_the_snapshot_that_do_something_else(lab: Lab) -> None:
    lab.on("storage1", f"cat > /var/tmp/date << 'END'\n{PLAIN_DATE}END\nchmod 755 /var/tmp/date")
    lab.on("storage1", "mount --bind /var/tmp/date /usr/bin/date")
    try:
        message = refused(lab)
    finally:
        lab.on("storage1", "umount /usr/bin/date; rm /var/tmp/date")
    assert "storage1: the snapshot could not be taken" in message and "GNU date" in message


@pytest.fixture
def ipv6(lab: Lab) -> Iterator[dict[str, dict[str, str]]]:
    """Addresses of IPv6 for those hosts that reach each other's exports; variables that name them."""
    addresses = {"storage1": "fd00:15b::1", "backup1": "fd00:15b::2", "dr1": "fd00:15b::3"}
    try:
        for host, address in addresses.items():
            lab.on(host, f"ip -6 address replace {address}/64 dev eth0 nodad")
        yield {host: {"openisb_data_address": address} for host, address in addresses.items()}
    finally:
        for host, address in addresses.items():
            lab.on(host, f"ip -6 address flush to {address} dev eth0")


def test_ipv6(lab: Lab, ipv6: dict[str, dict[str, str]], tmp_path: Path) -> None:
    report = tmp_path / "isb.json"
    status, output = lab.play("isb.yml", "-e", f"isb_report_path={report}", host_vars=ipv6)
    assert status == 0, output
    found = json.loads(report.read_text())
    assert found["exit_status"] == 0
    more = {
        "restore_server": "fs1",
        "restore_volume": "m",
        "restore_host": "dr1",
        "restore_folder": "/var/lib/openisb/restored",
    }
    try:
        status, output = lab.play("restore.yml", "-e", json.dumps(more), host_vars=ipv6)
        assert status == 0, output
    finally:
        lab.on("dr1", "rm -rf /var/lib/openisb/restored")
