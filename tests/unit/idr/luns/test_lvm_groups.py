# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume groups of other hosts. What LVM writes of a group needs no device-mapper; test_lvm.py activates them, too."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.luns import lvm as luns_lvm
from ansible_collections.openisb.backup.plugins.module_utils.luns.errors import LunError

from .conftest import share_group

if TYPE_CHECKING:
    from .conftest import Disks

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(not Path("/sbin/vgimportclone").exists(), reason="no lvm2 here: run make test-vm"),
]
MIB = 1024**2
OWNER = "prod-host_1.example"
Group = Callable[..., str]


@pytest.fixture
def group(disks: Disks) -> Iterator[Group]:
    """Makes a group on a disk of its own, and returns the disk's device."""
    with disks.attached(disks.empty("table.img", 64 * MIB)) as device:

        def make(owner: str = "", shared: bool = False) -> str:
            settings = luns_lvm._settings([device], owner=owner)
            for command in (["pvcreate", *settings, device], ["vgcreate", *settings, "vg-prod", device]):
                subprocess.run(command, check=True, capture_output=True)
            if shared:
                share_group(settings, "vg-prod", disks.folder)
            return device

        yield make


def told(device: str) -> dict[str, str]:
    """What LVM tells of the group on a device."""
    words = ["--foreign", "--shared", "--reportformat", "json", "-o", "vg_name,vg_systemid,vg_lock_type", device]
    done = subprocess.run(["pvs", *luns_lvm._settings([device]), *words], check=True, capture_output=True)
    (found,) = json.loads(done.stdout)["report"][0]["pv"]
    return dict(found)


@pytest.mark.parametrize(
    ("owner", "shared", "before"),
    [
        ("", False, {"vg_name": "vg-prod", "vg_systemid": "", "vg_lock_type": ""}),
        (OWNER, False, {"vg_name": "vg-prod", "vg_systemid": OWNER, "vg_lock_type": ""}),
        ("", True, {"vg_name": "vg-prod", "vg_systemid": "", "vg_lock_type": "sanlock"}),
    ],
    ids=["plain", "owned", "shared"],
)
def test_a_copy_is_taken_over_whoever_the_original_belongs_to(
    owner: str, shared: bool, before: dict[str, str], group: Group, strict_host: Path
) -> None:
    device = group(owner, shared)
    assert told(device) == before
    settings = [each.read_bytes() for each in sorted(strict_host.glob("*.conf"))]
    assert luns_lvm.group_of(device, 30) == "vg-prod"
    luns_lvm.take_over(device, "idr_x_0", 30)
    after = told(device)
    assert (after["vg_name"], after["vg_systemid"]) == ("idr_x_0", "")
    assert after["vg_lock_type"] in ("", "none")
    assert luns_lvm.group_of(device, 30) == "idr_x_0"
    assert [each.read_bytes() for each in sorted(strict_host.glob("*.conf"))] == settings


def test_a_disk_that_is_in_no_group_any_more(group: Group) -> None:
    device = group()
    option, words = luns_lvm._settings([device])
    subprocess.run(["vgremove", option, words, "--yes", "vg-prod"], check=True, capture_output=True)
    with pytest.raises(LunError, match="no longer belongs to a volume group"):
        luns_lvm.take_over(device, "idr_x_0", 30)
