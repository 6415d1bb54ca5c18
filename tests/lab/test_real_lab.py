# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A real lab, started, used, broken and removed; and its checker, proven on copies that are not of one moment.

The tests have a small lab of their own in build/, beside any that runs. They go in the order of this file.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"lab_fill": 2, "lab_database_records": 2000, "lab_lun_size": 320, "lab_pool_size": 4096}
NAMES = ("fs1", "fs2", "fs3", "storage1", "backup1", "dr1")


class RealLab:
    """One lab in a folder of its own."""

    def __init__(self, folder: Path, tool: dict[str, ModuleType], inventory: str) -> None:
        self.folder = folder.resolve()
        self.tool = tool
        self.inventory = inventory

    @property
    def described(self) -> Any:
        return self.tool["spec"].read(self.folder / "lab.json")

    def play(self, playbook: str, **variables: Any) -> subprocess.CompletedProcess[str]:
        """Run a playbook with the lab's inventory."""
        variables = {"lab_dir": str(self.folder), **variables}
        argv = [
            str(Path(sys.executable).with_name("ansible-playbook")),
            "-i",
            f"inventories/{self.inventory}",
            f"lab/{playbook}",
        ]
        return subprocess.run(
            [*argv, "-e", json.dumps(variables)], cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
        )

    def start(self, **variables: Any) -> subprocess.CompletedProcess[str]:
        return self.play("lab.yml", **{**SMALL, **variables})

    def mend(self) -> list[str]:
        """Run the stages of a start by themselves, which takes a fraction of the playbook's time; what was done."""
        changes = []
        for stage in ("hosts", "storage", "databases", "load"):
            argv = [sys.executable, str(ROOT / "lab/roles/lab/files/labtool"), stage, str(self.folder / "lab.json")]
            done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=120)
            assert done.returncode == 0, done.stderr
            changes += json.loads(done.stdout)["changes"]
        return changes

    def remove(self) -> subprocess.CompletedProcess[str]:
        return self.play("lab.yml", lab_state="absent")

    def ssh(self, host: str, command: str) -> str:
        """Run a command on a host as a person would."""
        argv = ["ssh", "-F", str(self.folder / "ssh_config"), host, command]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{host}: {command}: exit status {done.returncode}: {done.stderr}"
        return done.stdout

    def host(self, name: str) -> Any:
        return next(host for host in self.described.hosts if host.name == name)

    def moving(self) -> bool:
        """Whether the load goes on everywhere."""
        before = self.tool["load"].status(self.described)
        time.sleep(2)
        after = self.tool["load"].status(self.described)
        return all(after[name][key] > count for name, counts in before.items() for key, count in counts.items())

    def serials(self, server: str) -> dict[str, str]:
        return {volume.name: volume.serial for volume in self.host(server).volumes}


def changed(done: subprocess.CompletedProcess[str]) -> int:
    """How many tasks of a successful play changed something."""
    assert done.returncode == 0, done.stdout + done.stderr
    return int(re.findall(r"localhost\s.*changed=(\d+)", done.stdout)[0])


def left_on_machine(loops: ModuleType, lab_id: str, folder: Path) -> dict[str, set[str]]:
    """Whatever a lab can leave behind, as far as it bears the lab's id or folder."""

    def told(*argv: str) -> set[str]:
        return set(subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines())

    marked = set()
    for environ in Path("/proc").glob("[0-9]*/environ"):
        try:
            marked |= {environ.parent.name} if f"OPENISB_LAB={lab_id}".encode() in environ.read_bytes() else set()
        except OSError:
            continue
    return {
        "mounts": {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line},
        "interfaces": {line for line in told("ip", "-oneline", "link") if f"isb{lab_id}" in line},
        "loop devices": {line for line in told("losetup", "--list", "--noheadings") if str(folder) in line}
        | {str(number) for number in loops.labelled(f"{lab_id}/").values()},
        "processes": marked,
        "network namespaces": {line for line in told("ip", "netns") if lab_id in line},
        "connections": {str(path) for path in Path("~/.ansible/cp").expanduser().glob(f"openisb-{lab_id}/*")},
        "folders": {str(path) for path in (folder, Path(f"/tmp/openisb-lab-{lab_id}")) if path.exists()},
    }


def ipc() -> set[str]:
    """Shared memory and semaphores of the machine itself."""
    return {
        line.split()[1]
        for kind in ("shm", "sem")
        for line in Path(f"/proc/sysvipc/{kind}").read_text().splitlines()[1:]
    }


@pytest.fixture(scope="module")
def lab(labtool: dict[str, ModuleType]) -> Iterator[RealLab]:
    """A lab with hosts in namespaces, removed whatever happens."""
    lab = RealLab(ROOT / "build/pytest-lab", labtool, "lab")
    assert changed(lab.remove()) >= 0
    assert changed(lab.start(lab_profile="namespaces")) > 0
    yield lab
    assert lab.remove().returncode == 0


def test_a_second_start_changes_nothing(lab: RealLab) -> None:
    assert changed(lab.start()) == 0


def test_hosts_are_hosts_of_their_own(lab: RealLab) -> None:
    ids = set()
    for name in NAMES:
        told = lab.ssh(name, "hostname; readlink /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/pid; echo $HOME")
        hostname, *rest, home = told.split()
        assert (hostname, home) == (name, "/root")
        ids |= set(rest)
    assert len(ids) == 3 * len(NAMES)
    assert not any(os.readlink(f"/proc/self/ns/{kind}") in ids for kind in ("mnt", "net", "pid"))


@pytest.mark.parametrize("server", ["fs1", "fs2", "fs3"])
def test_a_server_sees_its_own_luns_alone(lab: RealLab, server: str) -> None:
    links = lab.ssh(server, "ls /dev/disk/by-id").split()
    places = {place for volume in lab.host(server).volumes for place in (volume.link, volume.device)}
    assert links == sorted(Path(place).name for place in places)
    nodes = lab.ssh(server, "ls -d /dev/loop*").split()
    assert len(nodes) == len(links)


def test_a_host_cannot_change_the_machine(lab: RealLab) -> None:
    assert "refused" in lab.ssh("backup1", "touch /usr/probe /etc/probe 2>/dev/null || echo refused")
    assert not Path("/usr/probe").exists() and not Path("/etc/probe").exists()


def test_nothing_of_a_host_is_mounted_on_the_machine(lab: RealLab) -> None:
    assert left_on_machine(lab.tool["loops"], lab.described.id, lab.folder)["mounts"] == set()


def test_the_load_goes_on_and_crosses_servers(lab: RealLab) -> None:
    assert lab.moving()


# The checker. Copies are reflinks of LUN files, taken one after the other or all at once, then checked on dr1.


def copy_luns(lab: RealLab, servers: tuple[str, ...]) -> None:
    """Copy the LUNs of these servers on the storage host."""
    steps = ["mkdir -p /srv/pool/copies"]
    for server in servers:
        for serial in lab.serials(server).values():
            steps.append(f"cp --reflink=always /srv/pool/luns/{serial}.lun /srv/pool/copies/")
    lab.ssh("storage1", " && ".join(steps))


def check_copies(lab: RealLab) -> dict[str, Any]:
    """Bring the copies to dr1, check them there, and drop them; the report."""
    copies = lab.tool["hosts"].seen_from_machine(lab.described, lab.host("storage1"), "/srv/pool/copies")
    target = lab.tool["hosts"].seen_from_machine(lab.described, lab.host("dr1"), "/var/tmp/copies")
    subprocess.run(["cp", "-r", "--sparse=always", str(copies), str(target)], check=True)
    images = {
        host.name: {volume.name: f"/var/tmp/copies/{volume.serial}.lun" for volume in host.volumes}
        for host in lab.described.file_servers
    }
    report = lab.folder / "report.json"
    try:
        done = lab.play("lab_check.yml", lab_check_images=images, lab_check_report=str(report))
        assert report.exists(), done.stdout + done.stderr
        found: dict[str, Any] = json.loads(report.read_text())
        assert (done.returncode == 0) == (found["one_point_in_time"] and found["sound"]), done.stdout
        return found
    finally:
        report.unlink(missing_ok=True)
        shutil.rmtree(target)
        shutil.rmtree(copies)


def freezable(lab: RealLab, server: str) -> str:
    """The mounts that the kernel can freeze. NTFS is a program's; nobody writes to it here."""
    return " ".join(volume.mount for volume in lab.host(server).volumes if volume.is_freezable)


def quiesce(lab: RealLab, server: str) -> None:
    mounts = freezable(lab, server)
    lab.ssh(server, f". /root/.profile && mupip freeze -on '*' && for m in {mounts}; do fsfreeze -f $m; done")


def release(lab: RealLab, server: str) -> None:
    mounts = freezable(lab, server)
    lab.ssh(server, f". /root/.profile; for m in {mounts}; do fsfreeze -u $m; done; mupip freeze -off '*'")


def scopes(report: dict[str, Any]) -> set[str]:
    return {each["scope"] for each in report["violations"]}


def test_copies_of_quiesced_servers_are_of_one_point_in_time(lab: RealLab) -> None:
    servers = ("fs1", "fs2", "fs3")
    for server in servers:  # NTFS cannot be frozen here, and must not be in the middle of a write
        lab.ssh(server, "sync")
    try:
        for server in servers:
            quiesce(lab, server)
        copy_luns(lab, servers)
    finally:
        for server in servers:
            release(lab, server)
    report = check_copies(lab)
    assert report["violations"] == []
    assert report["one_point_in_time"] and report["sound"]
    assert {len(server["volumes"]) for server in report["servers"].values()} == {2}
    assert report["servers"]["fs2"]["volumes"]["docs"]["filesystem"] == "ntfs"


def test_copies_without_quiesce_one_after_the_other_are_found_out(lab: RealLab) -> None:
    """What is written goes on being written: the servers are told to write out what they have, and nothing else."""
    for server in ("fs1", "fs2", "fs3"):
        lab.ssh(server, "sync")
        copy_luns(lab, (server,))
        time.sleep(0.3)
    report = check_copies(lab)
    assert not report["one_point_in_time"]
    assert "cross" in scopes(report)


def test_servers_quiesced_each_by_itself_are_found_out(lab: RealLab) -> None:
    """Every copy is flawless by itself: only the check across servers can tell."""
    for server in ("fs1", "fs2", "fs3"):
        try:
            quiesce(lab, server)
            copy_luns(lab, (server,))
        finally:
            release(lab, server)
        time.sleep(0.3)
    report = check_copies(lab)
    assert report["sound"]
    assert not report["one_point_in_time"]
    assert scopes(report) == {"cross"}
    kinds = {each["kind"] for each in report["violations"]}
    assert kinds & {"received_before_sent", "acknowledged_before_received"}


def test_the_check_leaves_nothing_on_its_host(lab: RealLab) -> None:
    assert lab.ssh("dr1", "ls /var/tmp; grep -c check /proc/mounts || true").split() == ["0"]
    attached = lab.ssh("dr1", "losetup --list --noheadings --output BACK-FILE")
    assert "/var/tmp" not in attached


# Breaking it.


def test_a_server_that_was_killed_while_frozen_comes_back(lab: RealLab) -> None:
    quiesce(lab, "fs1")
    pid = lab.tool["hosts"].first_process(lab.described, lab.host("fs1"))
    os.kill(pid, signal.SIGKILL)
    changes = lab.mend()
    assert "host fs1" in changes and "host fs2" not in changes
    assert lab.moving()
    assert lab.mend() == []


def test_a_dead_part_of_the_load_is_started_again(lab: RealLab) -> None:
    described = lab.described
    mark = lab.tool["hosts"].mark(described, lab.host("fs2"))
    receiver = [each for each in lab.tool["processes"].marked(mark) if "/receive@" in each.mark]
    lab.tool["processes"].end(receiver, signal.SIGTERM)
    assert len(receiver) == 1
    assert lab.mend() == ["fs2: receive"]
    assert lab.moving()


def test_a_dead_sshd_is_started_again_and_its_host_lives_on(lab: RealLab) -> None:
    before = lab.tool["hosts"].first_process(lab.described, lab.host("backup1"))
    lab.ssh("backup1", "kill $(cat /run/sshd.pid)")
    assert lab.mend() == ["sshd of backup1"]
    assert lab.tool["hosts"].first_process(lab.described, lab.host("backup1")) == before
    assert lab.ssh("backup1", "hostname").strip() == "backup1"


def test_the_load_can_be_stopped_and_goes_on_from_where_it_was(lab: RealLab) -> None:
    assert changed(lab.start(lab_load_state="stopped")) > 0
    before = lab.tool["load"].status(lab.described)
    time.sleep(0.5)
    assert lab.tool["load"].status(lab.described) == before
    assert changed(lab.start()) > 0
    after = lab.tool["load"].status(lab.described)
    assert all(after[name][key] >= count for name, counts in before.items() for key, count in counts.items())


def test_two_labs_do_not_disturb_each_other(lab: RealLab, labtool: dict[str, ModuleType]) -> None:
    """The second is a copy of the first one's folder, as when a checkout is copied."""
    other = RealLab(ROOT / "build/pytest-lab-copy", labtool, "lab")
    assert not other.folder.exists()
    other.folder.mkdir()
    for name in ("id", "profile", "pool.img"):
        shutil.copy(lab.folder / name, other.folder / name)
    try:
        started = other.start(lab_fill=0)
        assert changed(started) > 0
        assert other.described.id != lab.described.id
        assert lab.moving() and other.moving()
        assert other.ssh("fs1", "ls /srv/files").split() == []
    finally:
        removed = other.remove()
    assert changed(removed) > 0
    assert not any(left_on_machine(labtool["loops"], labtool["spec"].lab_id(other.folder), other.folder).values())
    assert lab.moving()


def test_removal_leaves_nothing(lab: RealLab) -> None:
    """Not even of a server that is frozen, and of one that died frozen."""
    lab_id = lab.described.id
    quiesce(lab, "fs1")
    quiesce(lab, "fs2")
    os.kill(lab.tool["hosts"].first_process(lab.described, lab.host("fs2")), signal.SIGKILL)
    assert changed(lab.remove()) == 1
    left = left_on_machine(lab.tool["loops"], lab_id, lab.folder)
    assert not any(left.values()), left
    assert changed(lab.remove()) == 0


# The plain profile.


@pytest.fixture(scope="module")
def plain(labtool: dict[str, ModuleType]) -> Iterator[RealLab]:
    plain = RealLab(ROOT / "build/pytest-lab-plain", labtool, "lab_plain")
    assert changed(plain.remove()) >= 0
    yield plain
    assert plain.remove().returncode == 0


def test_plain_hosts(plain: RealLab) -> None:
    before = ipc()
    assert changed(plain.start(lab_profile="plain")) > 0
    assert changed(plain.start()) == 0
    assert plain.moving()
    check_plain_copies(plain)
    lab_id = plain.described.id
    freeze_plain(plain.described, plain.described.file_servers[0], "-on")
    assert changed(plain.remove()) == 1
    assert not any(left_on_machine(plain.tool["loops"], lab_id, plain.folder).values())
    assert ipc() <= before


def freeze_plain(described: Any, host: Any, way: str) -> None:
    """Freeze or release the database of a plain host."""
    base = described.host_folder(host)
    env = {"gtm_dist": described.gtm_dist, "gtmgbldir": f"{base}/srv/m/mumps.gld", "gtm_tmp": f"{base}/tmp"}
    argv = [f"{described.gtm_dist}/mupip", "freeze", way, "*"]
    subprocess.run(argv, env=env, check=True, capture_output=True, timeout=60)


def check_plain_copies(plain: RealLab) -> None:
    """Each database frozen by itself, copied, and let go: sound, and not one point in time."""
    images = {}
    for host in plain.described.file_servers:
        copy = plain.folder / f"{host.name}.copy"
        try:
            freeze_plain(plain.described, host, "-on")
            shutil.copy(plain.described.host_folder(host) / "srv/m/mumps.dat", copy)
        finally:
            freeze_plain(plain.described, host, "-off")
        images[host.name] = {"m": str(copy)}
        time.sleep(0.3)
    report = plain.folder / "report.json"
    done = plain.play("lab_check.yml", lab_check_images=images, lab_check_report=str(report))
    found = json.loads(report.read_text())
    assert done.returncode != 0
    assert found["sound"]
    assert scopes(found) == {"cross"}
