# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Chooses savesets from a catalog, a list of them, oldest first."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.module_utils.answers import saveset as checked


def choose_savesets(savesets, servers, volume):
    """The latest saveset of each wanted volume: a dict of savesets and problem (a text, empty where all were found).

    ``servers``: names with commas. ``volume``: a volume's name, or empty for all volumes of these servers.
    """
    wanted = [name.strip() for name in servers.split(",") if name.strip()]
    latest = {}
    for saveset in savesets:
        if saveset["server"] in wanted and volume in ("", saveset["volume"].partition("/")[2]):
            latest[saveset["volume"]] = checked(saveset)
    found = {saveset["server"] for saveset in latest.values()}
    missing = [name for name in wanted if name not in found]
    problem = ""
    if missing:
        problem = "There is no saveset{} of {} to restore: 'ansible-playbook catalog.yml' lists what there is".format(
            f" of volume {volume}" if volume else "",
            ", ".join(missing),
        )
    return {"savesets": [latest[name] for name in sorted(latest)], "problem": problem}


def bases(volumes, server, savesets):
    """The run of each volume's latest saveset, by the volume's serial; empty where it has none."""
    latest = {saveset["volume"]: saveset["run_id"] for saveset in savesets}
    return {volume["serial"]: latest.get("{}/{}".format(server, volume["name"]), "") for volume in volumes}
