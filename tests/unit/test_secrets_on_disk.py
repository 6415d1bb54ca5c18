# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Playbooks of an installed collection, with Ansible's own settings, on a disk that is searched for their secrets.

All that a play may write to is on one image, mounted so that every write gets there at once: also what is deleted a
moment later is found in it.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential

from .saveset.test_serve import needs_nbdkit

MIB = 1024**2
NOBODY = 65534
PLAYBOOK = Path(sys.executable).parent / "ansible-playbook"

# Another user who may read the checkout, wherever it is, and write nothing that is not his own.
AS = """
    setpriv --reuid {user} --regid {user} --clear-groups --inh-caps=-all,+dac_read_search
    --ambient-caps=-all,+dac_read_search --bounding-set=+all --
"""

# Takes what Ansible gives to sudo: options, then the command.
SUDO = """#!/bin/sh
while [ "$1" != -u ]; do shift; done
shift 2
HOME=/root exec {setpriv} --reuid 0 --regid 0 --clear-groups -- "$@"
"""

SET_UP = """
- ansible.builtin.import_playbook: openisb.backup.resolve
- hosts: backup_servers
  gather_facts: false
  tasks:
    - ansible.builtin.include_role: {name: openisb.backup.repository, tasks_from: create}
    - ansible.builtin.include_role: {name: openisb.backup.ring}
"""

CONTROL = """
- hosts: backup_servers
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {content: "{{ control }}", dest: "{{ disk }}/control", mode: "0600"}
    - ansible.builtin.file: {path: "{{ disk }}/control", state: absent}
"""


# As the role block_backup does it; what is exported is the disk's own.
BACKUP = """
- ansible.builtin.import_playbook: openisb.backup.resolve
- hosts: backup_servers
  gather_facts: false
  tasks:
    - block:
        - openisb.backup.nbd_export:
            name: lun
            run_id: r
            path: "{{ disk }}/own/lun"
            address: 127.0.0.1
            run_dir: "{{ openisb_host.run_dir }}"
          register: lun
        - ansible.builtin.debug: {msg: "the key is {{ lun.psk }}"}
        - openisb.backup.block_backup:
            repository: "{{ openisb_host.repository }}"
            passphrase: "{{ repository_writer_passphrase }}"
            volumes: [{volume: one/m, source: "{{ lun.export.uri }}"}]
            psks: {one/m: "{{ lun.psk }}"}
            run_id: isb-20261128T210000Z-4f1c2a
            consistency_point: "2026-11-28T21:00:00+00:00"
            verdict: crash-consistent
            job: r.one
            run_dir: "{{ openisb_host.run_dir }}"
      always:
        - openisb.backup.nbd_export: {name: lun, run_id: r, run_dir: "{{ openisb_host.run_dir }}", state: absent}
"""

SERVE = """
- ansible.builtin.import_playbook: openisb.backup.resolve
- hosts: backup_servers
  gather_facts: false
  tasks:
    - block:
        - openisb.backup.saveset_export:
            repository: "{{ openisb_host.repository }}"
            passphrase: "{{ repository_passphrase }}"
            savesets: [{volume: one/m, name: d.one.m}]
            drill: d
            address: 127.0.0.1
            cache: 16M
            run_dir: "{{ openisb_host.run_dir }}"
          register: served
        - ansible.builtin.assert:
            that: served.exports['d.one.m'].export.cache == 16777216
      always:
        - openisb.backup.saveset_export: {drill: d, run_dir: "{{ openisb_host.run_dir }}", state: absent}
"""


class Site:
    """An inventory of one machine whose every folder is on the disk; ``user``: who runs Ansible and logs in."""

    def __init__(self, folder: Path, collections: Path, disk: Path, user: int, **settings: str) -> None:
        self.folder, self.collections, self.disk, self.user, self.settings = folder, collections, disk, user, settings
        self.passphrase, self.writer, self.password, self.control = (secrets.token_hex(16) for _each in range(4))
        for name in ("home", "tmp", "own"):
            (disk / name).mkdir(mode=0o700)
            os.chown(disk / name, user, user)
        (disk / "own/state").mkdir()
        (folder / "hosts.json").write_text(json.dumps(self._inventory()))
        (folder / "set_up.yml").write_text(SET_UP)
        for name, text in (("control", CONTROL), ("backup", BACKUP), ("serve", SERVE)):
            (folder / f"{name}.yml").write_text(text)

    def _inventory(self) -> dict[str, t.Any]:
        python = self._python()
        host: dict[str, t.Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": str(python),
            "repository_python": str(python),
            "openisb_state_dir": f"{self.disk}/own/state",
            "openisb_run_dir": f"{self.disk}/own/run",
            "repository_passphrase": self.passphrase,
            "repository_writer_passphrase": self.writer,
            "ring_password": self.password,
            "ring_password_file": f"{self.folder}/password",
            "isb_drivers": [{"name": "filesystem", "mounts": ["/srv/m"]}],
            "isb_volumes": [{"name": "m", "serial": "600a098000000011", "mount": "/srv/m"}],
            "ansible_async_dir": f"{self.disk}/own/async",
            "disk": str(self.disk),
            "control": self.control,
        }
        if self.user:
            sudo = self.folder / "sudo"
            sudo.write_text(SUDO.format(setpriv=self._setpriv()))
            sudo.chmod(0o755)
            host |= {"ansible_become": True, "ansible_become_exe": str(sudo)}
            host["ansible_remote_tmp"] = f"{self.disk}/home/.ansible/tmp"  # nobody has no home of his own
        groups = ("file_servers", "storage_hosts", "backup_servers", "listeners")
        return {"all": {"hosts": {"one": host}, "children": {name: {"hosts": {"one": None}} for name in groups}}}

    def _python(self) -> Path:
        """This Python, with the system's libnbd, where there is one."""
        libraries = self.folder / "lib"
        libraries.mkdir()
        for path in Path("/usr/lib/python3/dist-packages").glob("*nbd*"):
            (libraries / path.name).symlink_to(path)
        script = self.folder / "python"
        script.write_text(f'#!/bin/sh\nPYTHONPATH={libraries} exec {sys.executable} "$@"\n')
        script.chmod(0o755)
        return script

    def _setpriv(self) -> Path:
        """A setpriv that makes root of whoever calls it."""
        found = shutil.which("setpriv")
        assert found, "util-linux is essential"
        path = self.folder / "setpriv"
        shutil.copy(found, path)
        path.chmod(0o4755)
        return path

    def play(self, playbook: str, *arguments: str) -> str:
        """Run a playbook, and return what it says."""
        environment = {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": f"{self.disk}/home",
            "TMPDIR": f"{self.disk}/tmp",
            "ANSIBLE_CONFIG": str(self.collections / "none.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            **self.settings,
        }
        done = subprocess.run(
            [*AS.format(user=self.user).split(), PLAYBOOK, "-i", self.folder / "hosts.json", playbook, *arguments],
            env=environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture
def folder() -> t.Iterator[Path]:
    """A folder that every user can enter, unlike those of pytest."""
    with tempfile.TemporaryDirectory(prefix="openisb-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def collections(project_root: Path) -> t.Iterator[Path]:
    """The collection, installed as from a tarball."""
    with tempfile.TemporaryDirectory(prefix="openisb-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        install(project_root, Path(name))
        yield Path(name)


def install(project_root: Path, base: Path) -> None:
    """Copy what a tarball would hold of the collection."""
    target = base / "ansible_collections/openisb/backup"
    parts = ("plugins", "playbooks", "roles", "meta", "galaxy.yml")
    listed = subprocess.run(
        ["git", "-C", project_root, "ls-files", "-co", "--exclude-standard", *parts],
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.split():
        if (project_root / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(project_root / name, target / name)
    (base / "none.cfg").touch()


@pytest.fixture
def disk(folder: Path) -> t.Iterator[tuple[Path, Path]]:
    """An image, and where it is mounted so that all that is written is in it at once."""
    image, mounted = folder / "image", folder / "disk"
    image.touch()
    os.truncate(image, 256 * MIB)
    mounted.mkdir()
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop,sync", image, mounted], check=True)
    yield image, mounted
    if os.path.ismount(mounted):
        subprocess.run(["umount", mounted], check=True)


def found_in(image: Path, *words: str) -> list[str]:
    """Which of the words are anywhere in the image."""
    found, before = set(), b""
    with open(image, "rb") as stream:
        while piece := stream.read(16 * MIB):
            found |= {word for word in words if word.encode() in before + piece}
            before = piece[-64:]
    return [word for word in words if word in found]


def handed_over() -> list[Path]:
    """What nobody has taken of what was handed over."""
    return [path for folder in ("/dev/shm", "/run") for path in Path(folder).glob("openisb-handed.*")]


def assert_taken(before: list[Path]) -> None:
    """Fail unless all that was handed over since then is taken; what other tests hand over is soon taken as well."""
    end = time.monotonic() + 30
    while set(handed_over()) - set(before) and time.monotonic() < end:
        time.sleep(0.1)
    assert set(handed_over()) <= set(before)


@pytest.mark.slow
@pytest.mark.root
@pytest.mark.parametrize(
    ("user", "settings"),
    [
        (0, {}),
        (0, {"ANSIBLE_KEEP_REMOTE_FILES": "1"}),
        (NOBODY, {}),
    ],
    ids=["root", "root, remote files kept", "a plain login with sudo"],
)
def test_a_passphrase_is_on_no_disk(
    folder: Path, collections: Path, disk: tuple[Path, Path], user: int, settings: dict[str, str]
) -> None:
    """Creating and opening a repository, its keys, and jobs that run asynchronously; from Ansible's own settings."""
    image, mounted = disk
    before = handed_over()
    site = Site(folder, collections, mounted, user, **settings)
    site.play("set_up.yml")
    assert (folder / "password").read_text() == site.password + "\n"
    said = [site.play(f"openisb.backup.{name}", "-vvv") for name in ("catalog", "prune")]
    site.play("control.yml")
    assert_taken(before)
    subprocess.run(["umount", mounted], check=True)
    assert found_in(image, site.control) == [site.control], "the disk shows nothing, so this test would prove nothing"
    assert found_in(image, site.passphrase, site.writer, site.password) == []
    assert not any(word in text for text in said for word in (site.passphrase, site.writer))


@needs_nbdkit
@pytest.mark.root
@pytest.mark.slow
def test_jobs_get_their_secrets_all_the_same(folder: Path, collections: Path, disk: tuple[Path, Path]) -> None:
    """A backup over TLS, a verification, a restore and a served saveset, by a login that is not root."""
    image, mounted = disk
    site = Site(folder, collections, mounted, NOBODY)
    (mounted / "own/lun").write_bytes(os.urandom(MIB) + bytes(3 * MIB))
    site.play("set_up.yml")
    told = re.search(r"the key is ([0-9a-f]{64})", site.play("backup.yml"))
    assert told
    assert "1 savesets verified to the depth 'full'" in " ".join(site.play("openisb.backup.verify").split())
    site.play("serve.yml")
    no_run = ("-e", "isb_without_journal=true")  # the saveset is of none
    to = ("-e", "restore_server=one", "-e", f"restore_folder={mounted}/own/restored")
    site.play("openisb.backup.restore", *to, *no_run)
    assert filecmp.cmp(mounted / "own/lun", mounted / "own/restored/one-m.img", shallow=False)
    subprocess.run(["umount", mounted], check=True)
    assert found_in(image, site.passphrase, site.writer, site.password, told[1]) == []


@pytest.mark.root
@pytest.mark.slow
@pytest.mark.parametrize(
    ("playbook", "message"),
    [
        ("prune", "takes secrets, which must be on no disk, and none of .* /dev/shm is a tmpfs"),
        ("preflight", "found no folder in memory for secrets, which must not be written to a disk: mount a tmpfs"),
    ],
)
def test_a_host_without_memory_to_hand_it_over_in_gets_none(
    folder: Path, collections: Path, disk: tuple[Path, Path], playbook: str, message: str
) -> None:
    """The error names what is missing, before anything is frozen; and nothing was written."""
    image, mounted = disk
    site = Site(folder, collections, mounted, 0)
    site.play("set_up.yml")
    script = folder / "without.sh"
    # Namespaces of its own, in which nothing is in memory.
    script.write_text(
        f"mount --bind {mounted}/tmp /dev/shm && mount --bind {mounted}/tmp /run && cd {folder} && exec {PLAYBOOK} "
        f"-i hosts.json openisb.backup.{playbook}\n"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", script],
        env={
            **os.environ,
            "HOME": f"{mounted}/home",
            "ANSIBLE_CONFIG": str(collections / "none.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": str(collections),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert re.search(message, " ".join((done.stdout + done.stderr).split()))
    subprocess.run(["umount", mounted], check=True)
    assert found_in(image, site.passphrase, site.writer) == []


@pytest.mark.root
@pytest.mark.parametrize(
    ("variables", "cause"),
    [
        ({"ansible_become": True, "ansible_become_method": "ansible.builtin.su"}, "su cannot: use sudo"),
        ({"ansible_connection": "ansible.builtin.paramiko_ssh", "ansible_host": "127.0.0.1"}, "cannot: use ssh"),
    ],
    ids=["su", "paramiko"],
)
def test_what_can_only_run_modules_from_files_is_refused(play: t.Any, variables: dict[str, t.Any], cause: str) -> None:
    task = {"openisb.backup.saveset_info": {"repository": "/nowhere", "passphrase": "x"}, "vars": variables}
    (refused,) = play([task])
    assert refused["failed"]
    assert (
        "takes secrets, which must be on no disk, so it is run through a pipe" in refused["msg"]
        and cause in refused["msg"]
    )


@pytest.mark.parametrize("what", ["a link", "somebody else's", "too large", "gone"])
def test_a_file_that_is_not_what_was_handed_over_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Anybody may put files into /dev/shm."""
    path, real = tmp_path / "handed", tmp_path / "real"
    real.write_text('{"passphrase": "theirs"}' + " " * (confidential.LIMIT if what == "too large" else 0))
    if what == "a link":
        path.symlink_to(real)
    elif what != "gone":
        real.rename(path)
    if what == "somebody else's":
        monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    monkeypatch.setenv(confidential.VARIABLE, str(path))
    monkeypatch.setattr(confidential, "_handed", {})
    strategy, arguments = confidential.option("passphrase")["fallback"]
    with pytest.raises(RuntimeError, match="handed over in .*handed, cannot be read"):
        strategy(*arguments)
    assert confidential.VARIABLE not in os.environ


def test_what_was_handed_over_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "handed"
    path.write_text('{"passphrase": "handed", "psk": "key"}')
    monkeypatch.setenv(confidential.VARIABLE, str(path))
    monkeypatch.setattr(confidential, "_handed", {})
    found = {}
    for name in ("passphrase", "psk"):
        strategy, arguments = confidential.option(name)["fallback"]
        found[name] = strategy(*arguments)
    assert found == {"passphrase": "handed", "psk": "key"}
    assert not path.exists() and confidential.VARIABLE not in os.environ
