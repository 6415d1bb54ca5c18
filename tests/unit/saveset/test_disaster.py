# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The day on which nothing is left but a copy of the repository, its passphrase and the wheels.

The commands are those of the repository's README.txt, word for word, on a machine without network, checkout or Ansible.
"""

from __future__ import annotations

import filecmp
import os
import re
import shlex
import shutil
import signal
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program import tool

from .conftest import KIB, MIB, Lab, MakeImage, noise, text

ROOT = Path(__file__).resolve().parents[3]
WHEELS = ROOT / "build" / "wheels"
RUN = "isb-20261123T021500Z-4f1c2a"  # README.txt shows it
SIZE = 6 * MIB + 512

pytestmark = pytest.mark.root

#: Debian's own programs are all that the machine shares with this one.  Its other folders outlast each command.
ENTER = """\
set -e
cd "$1"
shift
for folder in usr etc dev proc; do mount --rbind "/$folder" "$folder"; done
for folder in usr etc; do mount -o remount,bind,ro "$folder"; done
exec env -i HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin chroot . sh -c "cd /root; $1"
"""


class Machine:
    """A machine that has just been installed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for folder in ("usr", "etc", "dev", "proc", "tmp", "var/tmp", "root", "srv", "opt", "repo"):
            (root / folder).mkdir(parents=True)
        for path in Path("/").iterdir():  # /bin, /lib and their like
            if path.is_symlink() and os.readlink(path).startswith("usr/"):
                (root / path.name).symlink_to(os.readlink(path))

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command as root, in a process group of its own."""
        return subprocess.Popen(
            ["unshare", "--mount", "--net", "sh", "-c", ENTER, "enter", str(self.root), command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def ask(self, command: str) -> tuple[int, str]:
        """Run a command; its exit status and all that it wrote."""
        process = self.start(command)
        out, err = process.communicate(timeout=120)
        return process.returncode, out + err

    def run(self, command: str) -> str:
        """Run a command that must end well; all that it wrote."""
        status, told = self.ask(command)
        assert status == 0, f"{command}: {told}"
        return told


class Rescue(t.NamedTuple):
    """What there is on that day, and what should come back; ``older`` is of the run RUN."""

    machine: Machine
    commands: list[str]
    older: Path
    latest: Path
    disk: str


def commands(readme: str) -> list[str]:
    """The lines of README.txt that are to be typed, in order; what is continued on the next line as one."""
    return re.findall(r"^     (\S.*)$", re.sub(r" \\\n +", " ", readme), re.MULTILINE)


@pytest.fixture
def rescue(lab: Lab, make_image: MakeImage, tmp_path: Path) -> t.Iterator[Rescue]:
    """A new machine with a disk, and with the repository that was carried to it."""
    older = make_image("older", SIZE, [(0, text(2 * MIB)), (3 * MIB, noise(MIB))])
    latest = make_image("latest", SIZE, [(0, text(2 * MIB)), (3 * MIB, noise(MIB, seed=2))])
    saveset = lab.backup(older, run_id=RUN)
    lab.backup(latest)
    machine = Machine(tmp_path / "machine")
    shutil.copytree(lab.path, machine.root / "repo", dirs_exist_ok=True)
    shutil.rmtree(lab.path)
    (machine.root / "root" / "passphrase").write_text("correct horse\n")
    assert list(WHEELS.glob("*.whl")), f"there are no wheels in {WHEELS}: run make ready"
    shutil.copytree(WHEELS, machine.root / "root" / "wheels")
    readme = (machine.root / "repo" / "README.txt").read_text()
    disk = make_image("disk", SIZE, [(0, noise(64 * KIB, seed=3))])
    attach = ["losetup", "--find", "--show", str(disk)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        shown = readme.replace("/dev/sdX", device).replace("fs1/m:0d5e82c1", f"fs1/m:{saveset.id[:8]}")
        yield Rescue(machine, commands(shown), older, latest, device)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


def typed(rescue: Rescue, start: str) -> list[str]:
    """The commands that begin so, as the shell runs them: with the alias that README.txt sets, and the passphrase."""
    (alias,) = [command for command in rescue.commands if command.startswith("alias isb=")]
    (_alias, program) = shlex.split(alias)[1].split("=", 1)
    found = [command for command in rescue.commands if command.startswith(start)]
    assert found, f"README.txt shows no {start}"
    (where,) = [command for command in rescue.commands if command.startswith("export ")]
    secret = "--passphrase-file /root/passphrase"
    return [f"{where}; exec {program} {command.removeprefix('isb ')} {secret}" for command in found]


def install(rescue: Rescue) -> None:
    """Steps 1 and 2, as for a machine without internet."""
    steps = [
        command
        for command in rescue.commands
        if command.startswith(("cp ", "sha256sum ", "python3 ")) or "--no-index" in command
    ]
    programs = "cp sha256sum python3 python3 python3 /opt/isb/bin/pip"
    assert [step.split()[0] for step in steps] == programs.split()
    assert "--require-hashes" in steps[-1]
    assert tool.sha256(tool.build()) in rescue.machine.run(" && ".join(steps))


@pytest.mark.slow
def test_all_comes_back_by_the_readme_alone(rescue: Rescue) -> None:
    machine = rescue.machine
    install(rescue)
    assert machine.ask(f"test -e {ROOT}")[0] == 1 and "eth" not in machine.run("cat /proc/net/dev")
    for module in ("ansible", "ansible_collections", "saveset"):
        status, told = machine.ask(f"/opt/isb/bin/python -c 'import {module}'")
        assert status == 1 and f"No module named '{module}'" in told

    (listing,) = typed(rescue, "isb list")
    assert re.search(rf"^fs1/m +2026-03-01 12:01:00 +{RUN} +application-consistent ", machine.run(listing), re.M)
    verified = [machine.run(command) for command in typed(rescue, "isb verify")]
    assert "2 savesets, depth full: good" in verified[0] and "every stored byte is the one" in verified[1]

    restores = typed(rescue, "isb restore")
    assert len(restores) == 6
    for command in restores:
        restore(rescue, command)
        target = Path(rescue.disk) if rescue.disk in command else machine.root / "srv" / "fs1-m.img"
        expected = rescue.older if "fs1/m:" in command else rescue.latest
        assert target.read_bytes() == expected.read_bytes(), command
    assert "--only-changed" in restores[-1]

    serving(rescue)
    recovering(rescue)


def restore(rescue: Rescue, command: str) -> None:
    """Step 4: the disk is not blank, so it is refused first, with the identity to name."""
    plain = re.sub(" --overwrite [^ ]+", "", command)
    if rescue.disk in command:
        status, told = rescue.machine.ask(plain)
        identity = re.search(r"--overwrite (content:[0-9a-f]{16})$", told, re.MULTILINE)
        assert status == 1 and identity, told
        plain += f" --overwrite {identity[1]}"
    rescue.machine.run(plain)


def serving(rescue: Rescue) -> None:
    """Step 5: the volume at once, until Ctrl-C."""
    (command,) = typed(rescue, "isb serve")
    server = rescue.machine.start(command)
    assert server.stdout is not None
    told = ""
    for line in server.stdout:
        told += line
        if line.startswith("Ctrl-C"):
            break
    found = re.search(r"^  (nbd\S+)$", told, re.MULTILINE)
    assert found, server.communicate()[1]
    uri = shlex.quote(found[1])
    rescue.machine.run(f"nbdcopy {uri} /srv/served.img")
    assert filecmp.cmp(rescue.latest, rescue.machine.root / "srv" / "served.img", shallow=False)
    os.killpg(server.pid, signal.SIGINT)
    _out, err = server.communicate(timeout=30)
    assert (server.returncode, err) == (0, "isb-saveset: ended; nothing is served any more\n")


def recovering(rescue: Rescue) -> None:
    """The passphrase and the folder keys are lost; a recovery sheet was printed in time."""
    machine = rescue.machine
    (listing,) = typed(rescue, "isb list")
    sheet = machine.run(listing.replace(" list ", " key sheet "))
    shutil.rmtree(machine.root / "repo" / "keys")
    assert machine.ask(listing)[0] == 1
    keys = re.findall(r"^    (?:[1-9]: .*)$", sheet, re.MULTILINE)
    assert len(keys) == 3 and max(map(len, sheet.splitlines())) <= 80
    (machine.root / "root" / "sheet.txt").write_text("\n".join(keys))
    (machine.root / "root" / "passphrase").write_text("a new one\n")
    (command,) = re.findall(r"^ +(/opt/isb/bin/python .*)$", re.sub(r" \\\n +", " ", sheet), re.MULTILINE)
    assert "Added key " in machine.run(f"{command} --new-passphrase-file /root/passphrase")
    assert RUN in machine.run(listing)
    assert "depth full: good" in machine.run(typed(rescue, "isb verify")[0])
