# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Wrong input stops in preflight, with one clear message, and no server is frozen."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from lab import Lab, refused

pytestmark = [pytest.mark.lab, pytest.mark.root]

SERIAL = "6f70656e69736211"  # of volume fs1/m in the lab
UNKNOWN = "00000000deadbeef"


def test_unknown_volume(lab: Lab) -> None:
    volumes = [{"name": "m", "serial": UNKNOWN, "mount": "/srv/m"}]
    message = refused(lab, host_vars={"fs1": {"isb_volumes": volumes}})
    assert f"fs1: volume m: no LUN with serial {UNKNOWN} on this server" in message
    assert f"storage1: The storage has no LUN with serial {UNKNOWN}" in message


def test_volume_that_another_lun_is_mounted_for(lab: Lab) -> None:
    volumes = [{"name": "m", "serial": SERIAL, "mount": "/srv/files"}]
    message = refused(lab, host_vars={"fs1": {"isb_volumes": volumes}})
    assert "not from the LUN with serial" in message


def test_serial_that_is_claimed_twice(lab: Lab) -> None:
    volumes = [{"name": "m", "serial": SERIAL, "mount": "/srv/m"}]
    message = refused(lab, host_vars={"fs2": {"isb_volumes": volumes}})
    assert f"serial {SERIAL} belongs to fs1/m and to fs2/m" in message


def test_unknown_driver(lab: Lab) -> None:
    message = refused(lab, host_vars={"fs3": {"isb_drivers": [{"name": "nonsense"}]}})
    assert "fs3" in message
    assert "nonsense" in message


def test_unreachable_server(lab: Lab) -> None:
    message = refused(lab, host_vars={"fs2": {"ansible_port": 1}})
    assert "fs2: did not answer" in message
    assert "fs1:" not in message


def test_unreachable_storage(lab: Lab) -> None:
    assert "storage1: did not answer" in refused(lab, host_vars={"storage1": {"ansible_port": 1}})


def test_wrong_passphrase(lab: Lab) -> None:
    message = refused(lab, "-e", "repository_passphrase=wrong")
    assert "backup1:" in message
    assert "passphrase" in message


def test_missing_repository(lab: Lab) -> None:
    assert "holds no repo.json" in refused(lab, "-e", "repository_path=/var/lib/openisb/nothing")


#: Python with a clock an hour ahead, for what it is given over standard input; hosts share the kernel's clock.
AHEAD = """#!/bin/sh
test "$*" = "-I -S -" || exec /usr/bin/python3 "$@"
{ echo "import time; time.time = lambda now=time.time: now() + 3600"; cat; } | /usr/bin/python3 "$@"
"""


@pytest.mark.parametrize("host", ["fs2", "storage1"])
def test_clock_that_is_off(lab: Lab, host: str) -> None:
    path = "/tmp/openisb-python-ahead"
    lab.on(host, f"cat > {path} << 'END'\n{AHEAD}END\nchmod 755 {path}")
    try:
        message = refused(lab, host_vars={host: {"ansible_python_interpreter": path}})
    finally:
        lab.on(host, f"rm -f {path}")
    assert f"{host}: its clock is 3600." in message or f"{host}: its clock is 3599." in message
    assert "ahead of most hosts'" in message and "preflight_clock_limit" in message


@pytest.fixture
def full_repository(lab: Lab) -> Iterator[str]:
    """A repository on a medium that has almost no room left."""
    path = "/srv/full"
    lab.on("backup1", f"mkdir -p {path} && mount -t tmpfs -o size=16m full {path}")
    try:
        status, output = lab.play("setup.yml", "-e", f"repository_path={path}/repository")
        assert status == 0, output
        lab.on("backup1", f"head -c 15M /dev/zero > {path}/ballast")
        yield f"{path}/repository"
    finally:
        lab.on("backup1", f"umount {path} && rmdir {path}")


def test_full_repository(lab: Lab, full_repository: str) -> None:
    message = refused(lab, "-e", f"repository_path={full_repository}")
    assert f"the repository {full_repository} has" in message
    assert "free disk space, or enlarge it" in message


@pytest.fixture
def missing_lun(lab: Lab) -> Iterator[None]:
    """The LUN of fs1/m is not where the storage keeps its LUNs."""
    path = f"/srv/pool/luns/{SERIAL}.lun"
    lab.on("storage1", f"mv {path} {path}.away")
    try:
        yield
    finally:
        lab.on("storage1", f"mv {path}.away {path}")


@pytest.mark.usefixtures("missing_lun")
def test_missing_lun(lab: Lab) -> None:
    assert f"storage1: The storage has no LUN with serial {SERIAL}" in refused(lab)
