# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What an inventory's quiesce drivers imply for the checks of its servers' copies. Pure."""

from __future__ import annotations

from typing import Any


def default_checks(drivers: list[dict[str, Any]], volumes: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The checks of a server whose inventory lists none, in the order of its drivers.

    Filesystem checks are not among them: every volume's filesystem is checked anyway. What other drivers quiesce is not
    known well enough; the inventory must list checks for it.
    """
    mounts = [volume["mount"] for volume in volumes or [] if volume.get("mount")]
    found = []
    for driver in drivers or []:
        if driver.get("name") == "gtm":
            found.append(_gtm(driver, mounts))
        elif driver.get("name") == "postgresql":
            found.append({"name": "postgresql"})
    return found


def _gtm(driver: dict[str, Any], mounts: list[str]) -> dict[str, Any]:
    """By the global directory, if that is on a volume; else every file that looks like a database on the volumes."""
    check = {"name": "gtm", "gtm_dist": driver["gtm_dist"]}
    if driver.get("environment"):
        check["environment"] = driver["environment"]
    if any(_is_on(driver["gbldir"], mount) for mount in mounts):
        check["gbldir"] = driver["gbldir"]
        if driver.get("regions"):
            check["regions"] = driver["regions"]
    else:
        check["files"] = [f"{mount.rstrip('/')}/**/*.dat" for mount in mounts]
    return check


def _is_on(path: str, mount: str) -> bool:
    return path.startswith(mount.rstrip("/") + "/")
