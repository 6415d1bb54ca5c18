# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The guard's unit with a real systemd: a manager of its own, in a cgroup of its own, whatever runs this machine."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import mounts
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import cgroups, manage

from .conftest import Holds, wait_for

pytestmark = [pytest.mark.root, pytest.mark.slow]

SYSTEMD = Path("/usr/lib/systemd/systemd")
PROGRAM = """#!/bin/sh
XDG_RUNTIME_DIR={folder} exec /usr/bin/systemd-run --user "$@"
"""


def make_cgroups() -> list[Path]:
    """One in each hierarchy that systemd works with."""
    made = []
    for mount in mounts.current():
        unified = mount.type == "cgroup2"
        if mount.root == "/" and (unified or (mount.type == "cgroup" and "name=systemd" in mount.options.split(","))):
            made.append(Path(mount.point, f"openisb-systemd-{os.getpid()}"))
            made[-1].mkdir()
    return made


def remove_tree(cgroup: Path) -> None:
    for folder, _folders, _files in os.walk(cgroup, topdown=False):
        wait_for(lambda folder=folder: not Path(folder, "cgroup.procs").read_text())
        os.rmdir(folder)


@pytest.fixture
def units(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], str]]:
    """What units of guards there are, by a systemd that the guards ask."""
    if not SYSTEMD.exists():
        pytest.skip(f"there is no {SYSTEMD} on this machine")
    try:
        made = make_cgroups()
    except OSError as error:
        pytest.skip(f"no cgroup can be made here: {error}")
    folder, programs = tmp_path / "xdg", tmp_path / "bin"
    (folder / "systemd/user").mkdir(parents=True, mode=0o700)
    folder.chmod(0o700)
    (folder / "systemd/user/nothing.target").write_text("[Unit]\nDescription=Nothing\n")
    programs.mkdir()
    (programs / "systemd-run").write_text(PROGRAM.format(folder=folder))
    (programs / "systemd-run").chmod(0o755)
    monkeypatch.setattr(cgroups, "SYSTEMD", str(tmp_path))
    monkeypatch.setattr(cgroups, "PATH", f"{programs}:{cgroups.PATH}")
    environment = {"XDG_RUNTIME_DIR": str(folder), "HOME": str(folder), "PATH": os.environ["PATH"]}
    enter = "".join(f"echo $$ > {cgroup}/cgroup.procs; " for cgroup in made)
    booted = "mount -t tmpfs run /run; mkdir -p /run/systemd/system"  # or else it refuses to start
    start = f"{enter} {booted}; exec {SYSTEMD} --user --unit=nothing.target"
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", start]

    def list_units() -> str:
        asked = ["systemctl", "--user", "list-units", "--all", "--no-legend", "thaw-guard-*"]
        return subprocess.run(asked, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout

    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as manager:
        try:
            wait_for((folder / "systemd/private").exists, 20)
            yield list_units
        finally:
            manager.terminate()
            manager.wait(30)
            for cgroup in made:
                remove_tree(cgroup)


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "thawed"])
def test_the_unit_is_there_as_long_as_the_guard(holds: Holds, units: Callable[[], str], killed: bool) -> None:
    place = holds.arm()["guard"]["place"]
    assert place.startswith("unit thaw-guard-")
    assert f"{place.partition(' ')[2]} loaded active running Thaws what an OpenISB holder has frozen" in units()
    assert holds.ask("freeze")["ok"]
    if killed:
        begun = time.monotonic()
        holds.kill("partner", "holder")
        wait_for(lambda: holds.frozen() == [])
        assert time.monotonic() - begun < 2
        holds.wait_for_thaw_by("guard")
        assert units() != ""
    assert manage.end(holds.run_dir, holds.find(), 5)["ok"]
    wait_for(lambda: units() == "")
