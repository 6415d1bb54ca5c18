# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The built collection, installed with nothing but what its metadata asks for, and with Ansible's own settings."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import ansible_collections
import pytest
from first_site import ROOT, SERIALS, InstalledSite, settings

NEWEST = ROOT / "tests/site/requirements-newest.txt"
#: Not of a controller that has only what the collection needs: all collections at once, and what starts jobs for AWX.
NOT_NEEDED = ("ansible", "ansible-runner")


def run(*command: object, **more: object) -> str:
    """Run a command; its output."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False, **more)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


def pythons() -> list[tuple[tuple[int, ...], Path]]:
    """The Pythons of this machine that can make environments, with their versions: the oldest one first."""
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path("~/.pyenv").expanduser())
    places = [Path(folder) for folder in ["/usr/bin", *os.environ["PATH"].split(":")]] + [
        *pyenv.glob("versions/3.*/bin")
    ]
    paths = {path for place in places for minor in (11, 12, 13, 14) if (path := place / f"python3.{minor}").exists()}
    # The one of a virtual environment would be shown its packages.
    found = [(version_of(path), path) for path in sorted(paths) if not (path.parents[1] / "pyvenv.cfg").exists()]
    return sorted(each for each in found if each[0] >= (3, 11))


def version_of(python: Path) -> tuple[int, ...]:
    """Its version; empty where it does not run, as a shim of pyenv may not, or cannot make environments."""
    code = "import ensurepip, ssl, sys, venv; print(*sys.version_info[:3])"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=False)
    return tuple(int(part) for part in done.stdout.split()) if done.returncode == 0 else ()


def suited(core: str) -> tuple[Path, Path]:
    """The Python for a core, and the locked packages of it."""
    known = pythons()
    (_oldest_version, oldest), (newest_version, newest) = known[0], known[-1]
    if core == "2.19":
        return oldest, ROOT / "requirements.txt"
    if newest_version >= (3, 12):
        return newest, NEWEST
    warnings.warn(
        "No Python 3.12 or newer is on this machine, so the newest ansible-core was not tried: only the newest "
        "one that Python 3.11 can run",
        stacklevel=2,
    )
    return newest, ROOT / "requirements.txt"


def locked_without(path: Path, names: tuple[str, ...]) -> str:
    """The entries of a locked file but for some."""
    kept, wanted = [], True
    for line in path.read_text().splitlines(keepends=True):
        if line[0].isalnum():
            wanted = line.partition("==")[0] not in names
        kept += [line] if wanted else []
    return "".join(kept)


@pytest.fixture(scope="module", params=["2.19", "newest"])
def core(request: pytest.FixtureRequest) -> str:
    """Which ansible-core."""
    return str(request.param)


@pytest.fixture(scope="module")
def folder(core: str) -> Iterator[Path]:
    """A folder for each ansible-core, with a short path, as sockets of connections are in it."""
    path = Path(tempfile.mkdtemp(prefix="isb-", dir="/tmp"))
    (path / "none.cfg").touch()
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def programs(core: str, folder: Path) -> Path:
    """Where a controller has its ansible-playbook: a Python environment with what requirements name."""
    python, requirements = suited(core)
    wanted = folder / "requirements.txt"
    wanted.write_text(locked_without(requirements, NOT_NEEDED))
    run(python, "-m", "venv", folder / "venv")
    quiet = ("-q", "--disable-pip-version-check", "--require-hashes")
    run(folder / "venv/bin/python", "-m", "pip", "install", *quiet, "-r", wanted)
    return folder / "venv/bin"


@pytest.fixture(scope="module")
def collections(folder: Path, programs: Path) -> Path:
    """The collection, installed from its tarball into a folder that has its dependencies and nothing else."""
    environment = {**os.environ, "HOME": str(folder), "ANSIBLE_CONFIG": str(folder / "none.cfg"), "LANG": "C.UTF-8"}
    target = folder / "collections"
    run(programs / "ansible-galaxy", "collection", "build", ROOT, "--output-path", folder, env=environment)
    (tarball,) = folder.glob("openisb-backup-*.tar.gz")
    told = json.loads(run("tar", "-xzOf", tarball, "MANIFEST.json"))["collection_info"]
    for name in told["dependencies"]:
        bring(name, target)
    offline = ("collection", "install", "--offline", tarball, "-p", target)
    run(programs / "ansible-galaxy", *offline, env={**environment, "ANSIBLE_COLLECTIONS_PATH": str(target)})
    return target


def bring(name: str, target: Path) -> None:
    """Copy a collection, and those that it depends on, from the Python package `ansible`: here is no Galaxy."""
    place = Path("ansible_collections", *name.split("."))
    if (target / place).exists():
        return
    paths = [Path(root).parent / place for root in ansible_collections.__path__]
    source = next(path for path in paths if (path / "MANIFEST.json").exists())
    shutil.copytree(source, target / place)
    for other in json.loads((source / "MANIFEST.json").read_text())["collection_info"]["dependencies"]:
        bring(other, target)


@pytest.fixture(scope="module")
def site(folder: Path, lab_dir: Path, programs: Path, collections: Path) -> InstalledSite:
    """A site of its own."""
    return InstalledSite(folder, lab_dir.resolve(), programs, collections)


def test_what_is_run_is_this_ansible_core(site: InstalledSite, core: str) -> None:
    said = run(site.programs / "ansible-playbook", "--version", env=site.environment(None)).splitlines()[0]
    print(f"installed collection on {said}")
    assert core == "newest" or "[core 2.19." in said


def test_every_task_finds_its_module(folder: Path, programs: Path, collections: Path) -> None:
    """Also those that are only included when something goes wrong, or on hosts that the lab has not."""
    roles = collections / "ansible_collections/openisb/backup/roles"
    files = [path.relative_to(roles).with_suffix("").parts for path in sorted(roles.glob("*/tasks/**/*.yml"))]
    named = [{"name": f"openisb.backup.{role}", "tasks_from": "/".join(parts)} for role, _tasks, *parts in files]
    tasks = [{"ansible.builtin.import_role": each} for each in named]
    assert len(tasks) > 80
    playbook = folder / "every_task.json"
    playbook.write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    environment = {**os.environ, **settings(folder, collections), "HOME": str(folder)}
    run(programs / "ansible-playbook", "--syntax-check", "-i", "localhost,", playbook, env=environment, cwd=folder)


def test_a_run_and_all_that_comes_after_it(site: InstalledSite, tmp_path: Path) -> None:
    site.play("openisb.backup.setup")
    site.play("openisb.backup.isb", "-e", f"isb_report_path={tmp_path}/isb.json")
    assert json.loads((tmp_path / "isb.json").read_text())["verdict"] == "application-consistent"
    assert f"{len(SERIALS)} savesets verified to the depth 'full'" in site.play("openisb.backup.verify")
    to = ("-e", "restore_host=dr.example.org", "-e", "restore_folder=/srv/restored")
    site.play("openisb.backup.restore", "-e", "restore_server=m.example.org", *to)
    site.on("dr1", "test -s /srv/restored/m.example.org-m.img")
    assert "PASSED" in site.play("openisb.backup.idr")
    site.play("openisb.backup.recover")


def test_the_readme_installs_it_without_galaxy(tmp_path: Path) -> None:
    """The Python package `ansible` has the collections that it asks for, and ansible-galaxy sees them there."""
    galaxy, environment = Path(sys.executable).parent / "ansible-galaxy", {**os.environ, "HOME": str(tmp_path)}
    (tmp_path / "none.cfg").touch()
    environment["ANSIBLE_CONFIG"] = str(tmp_path / "none.cfg")
    run(galaxy, "collection", "build", ROOT, "--output-path", tmp_path, env=environment)
    (tarball,) = tmp_path.glob("openisb-backup-*.tar.gz")
    run(galaxy, "collection", "install", "--offline", tarball, env=environment)
    installed = tmp_path / ".ansible/collections/ansible_collections"
    assert (installed / "openisb/backup/MANIFEST.json").exists()
    assert [path.name for path in installed.iterdir() if path.is_dir() and "." not in path.name] == ["openisb"]
