# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Creates, shows and removes the lab, one stage per call. Prints JSON: ``changes``, and the findings of the stage."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import controller
import database
import host_files
import hosts
import load
import mbf
import network
import probe
import shared
import spec
import storage
import volumes
from shell import LabError


def start_hosts(lab: spec.Lab) -> dict[str, Any]:
    """Start hosts that answer over SSH; in the plain profile, create their folders."""
    spec.require_possible(lab)
    changes = drop_copy(lab)
    for host in lab.hosts:
        changes += host_files.make_folders(lab, host)
    changes += host_files.make_shared_storage(lab) + shared.present(lab)
    changes += controller.make_passphrase(lab)
    if lab.plain:
        return {"changes": changes + controller.make_run_folders(lab)}
    net, made = network.present(lab)
    changes += made + host_files.make_keys(lab) + host_files.write_files(lab, net)
    started = hosts.present(lab)
    changes += started + hosts.connect(lab, net)
    if started:
        controller.forget_connections(lab)
    return {"changes": changes, "started": [name.split()[-1] for name in started], "subnet": str(net.subnet)}


def drop_copy(lab: spec.Lab) -> list[str]:
    """Drop a lab that was copied with its checkout: two filesystems with one UUID must not be mounted side by side."""
    made_as = lab.folder / "id"
    copied = made_as.exists() and made_as.read_text(encoding="utf-8") != lab.id
    if copied:
        for name in ("hosts", "shared", "shared-storage", "ssh", "journal-heads"):
            shutil.rmtree(lab.folder / name, ignore_errors=True)
        (lab.folder / "pool.img").unlink(missing_ok=True)
    made_as.write_text(lab.id, encoding="utf-8")
    return ["dropped the lab that was copied with the checkout"] if copied else []


def make_storage(lab: spec.Lab) -> dict[str, Any]:
    """Create the pool, the LUNs and the filesystems on them."""
    return {"changes": [] if lab.plain else storage.present(lab) + volumes.present(lab)}


def make_databases(lab: spec.Lab) -> dict[str, Any]:
    """Create the databases; recreate all of them if a killed server has lost its own."""
    changes = []
    if crashed := database.crashed(lab):
        load.end(lab)
        database.drop(lab)
        changes.append(f"databases dropped, because {', '.join(crashed)} ended without closing its own")
    return {"changes": changes + database.present(lab)}


def run_load(lab: spec.Lab) -> dict[str, Any]:
    """Start or end the load, as the lab specifies."""
    return {"changes": load.present(lab) if lab.load.running else load.absent(lab)}


def run_mbf(lab: spec.Lab) -> dict[str, Any]:
    """Start the stand-ins for MEDITECH's parts, if the lab has any."""
    return {"changes": mbf.present(lab)}


def show(lab: spec.Lab) -> dict[str, Any]:
    """Return the state of the load."""
    return {"changes": [], "load": load.status(lab)}


def remove(folder: Path) -> dict[str, Any]:
    """Remove the lab in this folder, and the folder. Needs no document, so an incomplete lab can be removed, too."""
    lab = spec.bare(folder)
    changes = controller.forget_connections(lab) + close_plain(folder)
    if os.geteuid() == 0:
        storage.thaw(lab)
    changes += hosts.absent(lab)
    if os.geteuid() == 0:
        changes += storage.absent(lab) + network.absent(lab)
    changes += controller.remove_run_folder(lab)
    if lab.folder.exists():
        shutil.rmtree(lab.folder)
        changes.append(f"folder {lab.folder}")
    return {"changes": changes}


def close_plain(folder: Path) -> list[str]:
    """Close the databases of plain hosts: their shared memory belongs to the machine and would remain."""
    document = folder / "lab.json"
    if not document.exists() or not (lab := spec.read(document)).plain:
        return []
    for host in lab.file_servers:
        database.release(lab, host)
    return load.absent(lab)


def try_machine(folder: Path) -> dict[str, Any]:
    """Return what prevents the profile 'namespaces' here; ``folder`` is for a small file."""
    return {"changes": [], "against_namespaces": probe.reasons_against_namespaces(folder)}


# Each takes the lab that the document describes.
STAGES = {
    "hosts": start_hosts,
    "storage": make_storage,
    "databases": make_databases,
    "load": run_load,
    "mbf": run_mbf,
    "status": show,
}
# Each takes a folder.
FOLDER_STAGES = {"probe": try_machine, "remove": remove}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=[*STAGES, *FOLDER_STAGES])
    parser.add_argument("path", type=Path, help="the lab's document; for probe and remove, its folder")
    given = parser.parse_args()
    try:
        if given.stage in FOLDER_STAGES:
            result = FOLDER_STAGES[given.stage](given.path)
        else:
            result = STAGES[given.stage](spec.read(given.path))
    except LabError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    sys.exit(main())
