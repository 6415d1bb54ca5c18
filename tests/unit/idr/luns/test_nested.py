# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volumes that are mounted below others: these come first, and go last."""

from __future__ import annotations

from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils.luns.disks import ending_order
from ansible_collections.openisb.backup.plugins.module_utils.luns.mounts import generations, parents


def test_what_is_below_others_comes_later() -> None:
    points = {"old": "/m/journal/old", "journal": "/m/journal/", "m": "/m", "m2": "/m2", "none": ""}
    assert generations(points) == [["m", "m2", "none"], ["journal"], ["old"]]
    assert generations({}) == []


def test_a_folder_that_only_begins_alike_is_no_parent() -> None:
    points = ["/m", "/m/journal", "/m2", "/", ""]
    assert parents("/m/journal/old", points) == ["/m", "/m/journal", "/"]
    assert parents("/m2", points) == ["/"]
    assert parents("/m/", points) == ["/"]
    assert parents("", points) == []


def test_luns_end_from_the_lowest_mount_up() -> None:
    def lun(*paths: str) -> dict[str, Any]:
        return {"mounts": [{"path": path} for path in paths]}

    luns = {"a": lun("/idr/m"), "b": lun("/idr/m/journal"), "c": lun(), "d": {"name": "d"}, "e": lun("/idr/files")}
    assert ending_order(luns) == [["b"], ["a", "c", "d", "e"]]
