# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Small repositories, images and the shortest ways to back up and restore them."""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.machinery
import importlib.metadata
import importlib.util
import os
import random
import stat
import sys
import typing as t
import venv
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps
from ansible_collections.openisb.backup.plugins.module_utils.saveset.cli import main
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import claim, source, target
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.program import tool
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import registry, store

#: An id of an object that a test makes up.
ID = "ab" * 16
NOON = datetime.datetime(2026, 3, 1, 12, tzinfo=datetime.UTC)
KIB = 1024
MIB = 1024 * KIB


def _system_nbd() -> t.Any:
    """The distribution's nbd (it is not on PyPI), for a virtual environment that does not see the system's packages.

    Only that one module is borrowed, and only by an interpreter that its binary part fits; None when there is none.
    """
    folder = Path("/usr/lib/python3/dist-packages")
    suffixes = [suffix for suffix in importlib.machinery.EXTENSION_SUFFIXES if (folder / f"libnbdmod{suffix}").exists()]
    if not suffixes:
        return None
    for name, file in (("libnbdmod", f"libnbdmod{suffixes[0]}"), ("nbd", "nbd.py")):
        spec = importlib.util.spec_from_file_location(name, folder / file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules["nbd"]


if deps.nbd is None:
    deps.nbd = _system_nbd()


_build_once = functools.cache(tool.build)


def open_over(path: Path | str, size: int, kind: type[target.FileTarget] = target.FileTarget) -> target.FileTarget:
    """Open a target whatever it holds."""
    return kind(str(path), size, held=claim.hold(str(path), create=True))


@pytest.fixture(scope="module", autouse=True)
def without_syncs() -> t.Iterator[None]:
    """Nothing that ends with a test has to reach the disk; what a power failure leaves, power.py tells without one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: os.fstat(fd) and None)
        yield


@pytest.fixture(scope="module", autouse=True)
def one_build() -> t.Iterator[None]:
    """The program that each new repository and each backup asks for is made once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tool, "build", _build_once)
        yield


class Lab:
    """A repository in a folder, and what the tests do with it."""

    def __init__(self, folder: Path, *, encryption: str = "aes-256-gcm", chunk_size: int = 64 * KIB) -> None:
        self.path = folder / "repository"
        self.folder = folder
        passphrase = b"correct horse" if encryption != "none" else None
        self.secret = Secret(passphrase, ScryptCost(n=16), unencrypted=encryption == "none")
        repository.Repository.create(self.store(), self.secret, encryption=encryption, chunk_size=chunk_size)
        self._minutes = 0
        self._outputs = 0

    def store(self) -> store.Store:
        """The store, opened anew."""
        return registry.open_store(str(self.path))

    def open(self) -> repository.Repository:
        """The repository, opened anew."""
        return repository.Repository.open(self.store(), self.secret)

    def backup(self, image: Path | str, volume: str = "fs1/m", **options: t.Any) -> repository.Saveset:
        """Back up; every saveset is a minute younger than the one before."""
        progress = options.pop("progress", None)
        request = self.request(volume, **options)
        with source.open_source(str(image)) as opened:
            return self.open().backup(opened, request, progress)

    def backup_all(
        self,
        images: t.Mapping[str, Path | source.Source],
        *,
        repo: repository.Repository | None = None,
        progress: t.Any = None,
        requests: t.Mapping[str, t.Mapping[str, t.Any]] | None = None,
        **options: t.Any,
    ) -> dict[str, repository.Saveset | Exception]:
        """Back up volumes as one job; what came of each. ``requests``: options of a volume alone."""
        moment = self._moment()
        with contextlib.ExitStack() as stack:
            volumes = []
            for volume, image in images.items():
                opened = image if isinstance(image, source.Source) else source.open_source(str(image))
                own = {**moment, **options, **(requests or {}).get(volume, {})}
                volumes.append((stack.enter_context(opened), BackupRequest(volume=volume, **own)))
            outcomes = (repo or self.open()).backup_all(volumes, progress)
        return dict(zip(images, outcomes, strict=True))

    def request(self, volume: str, **options: t.Any) -> BackupRequest:
        """A request for a volume, a minute younger than the one before."""
        return BackupRequest(volume=volume, **{**self._moment(), **options})

    def _moment(self) -> dict[str, t.Any]:
        self._minutes += 1
        time = NOON + datetime.timedelta(minutes=self._minutes)
        return {"run_id": f"run-{self._minutes}", "time": time, "verdict": "application-consistent"}

    def restore(self, saveset: repository.Saveset) -> Path:
        """Restore to a new file."""
        self._outputs += 1
        output = self.folder / f"restored-{self._outputs}"
        with target.open_target(str(output), saveset.size) as opened:
            saveset.restore(opened)
        return output

    def files(self, folder: str) -> list[Path]:
        """The objects below a folder of the repository."""
        return sorted(path for path in (self.path / folder).rglob("*") if path.is_file())


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    """An encrypted repository with chunks of 64 KiB."""
    return Lab(tmp_path)


@pytest.fixture
def plain_lab(tmp_path: Path) -> Lab:
    """A repository without encryption."""
    return Lab(tmp_path, encryption="none")


MakeImage = t.Callable[..., Path]


@pytest.fixture
def make_image(tmp_path: Path) -> MakeImage:
    """Make a sparse image file from pieces ``(offset, bytes)``; reproducible data by ``noise`` and ``text``."""

    def make(name: str, size: int, pieces: t.Iterable[tuple[int, bytes]] = ()) -> Path:
        path = tmp_path / name
        with open(path, "wb") as image:
            image.truncate(size)
            for offset, data in pieces:
                image.seek(offset)
                image.write(data)
            image.truncate(size)
        return path

    return make


def write(path: Path, offset: int, data: bytes) -> None:
    """Write into a file that is there."""
    with open(path, "r+b") as stream:
        stream.seek(offset)
        stream.write(data)


@functools.lru_cache(64)
def noise(length: int, seed: int = 1) -> bytes:
    """Incompressible bytes."""
    return random.Random(seed).randbytes(length)


@functools.lru_cache(64)
def text(length: int, seed: int = 1) -> bytes:
    """Compressible bytes without a repeated chunk."""
    line = b"".join(b"%08d entry of journal %d\n" % (number, seed) for number in range(length // 26 + 2))
    return line[:length]


def nameless(pid: int) -> list[tuple[bool, int]]:
    """Of the files without a name that a process has open: whether each is in memory, and its bytes."""
    devices = {}
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        fields = line.split()
        devices[fields[2]] = fields[fields.index("-") + 1]
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        status = path.stat()
        if stat.S_ISREG(status.st_mode) and not status.st_nlink:
            device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
            # What memfd_create() makes is on no mount.
            found.append((devices.get(device, "tmpfs") == "tmpfs", status.st_blocks * 512))
    return found


@pytest.fixture
def outside(tmp_path: Path) -> t.Iterator[Path]:
    """A folder that is no part of any repository; nothing in it may change."""
    folder = tmp_path / "outside"
    (folder / "fs1~m").mkdir(parents=True)
    files = [folder / "precious", folder / ID, folder / f"{ID}.json", folder / "fs1~m" / ID]
    for path in files:
        path.write_bytes(noise(64 * KIB))
    yield folder
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == sorted(files)
    for path in files:
        assert path.read_bytes() == noise(64 * KIB) and path.stat().st_blocks * 512 >= 64 * KIB


@pytest.fixture
def mixed(make_image: MakeImage) -> Path:
    """An image with text, noise, written zeros, holes and a size that is no multiple of anything."""
    return make_image(
        "mixed",
        6 * MIB + 12345,
        [
            (0, text(700 * KIB)),
            (1 * MIB + 17, noise(900 * KIB)),
            (3 * MIB, bytes(512 * KIB)),
            (4 * MIB + 3, text(1 * MIB, seed=2)),
            (6 * MIB + 12000, b"the end"),
        ],
    )


@pytest.fixture
def scratch_environment() -> dict[str, str]:
    """The environment for child processes that import the collection."""
    root = Path(__file__).resolve().parents[3]
    return {**os.environ, "PYTHONPATH": str(root / "plugins" / "module_utils")}


class Result(t.NamedTuple):
    """What a command of isb-saveset did."""

    status: int
    out: str
    err: str


Cli = t.Callable[..., Result]


@pytest.fixture
def cli(lab: Lab, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command of isb-saveset in the lab's repository, with its passphrase in the environment."""
    monkeypatch.setenv("OPENISB_PASSPHRASE", "correct horse")
    monkeypatch.chdir(lab.path)

    def run(*arguments: str | Path) -> Result:
        capfd.readouterr()
        try:
            status = main.main([str(argument) for argument in arguments])
        except SystemExit as error:
            status = int(error.code or 0)
        return Result(status, *capfd.readouterr())

    return run


#: What isb-saveset needs, with what that needs in turn.
_LIBRARIES = ("blake3", "zstandard", "cryptography", "cffi", "pycparser", "typing_extensions")


def _bare_python(folder: Path) -> Path:
    venv.create(folder, with_pip=False, symlinks=True)
    return folder / "bin" / "python"


@pytest.fixture(scope="session")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has the libraries that isb-saveset needs and nothing else: neither Ansible nor the collection."""
    python = _bare_python(tmp_path_factory.mktemp("bare"))
    (packages,) = python.parent.parent.glob("lib/python*/site-packages")
    for library in _LIBRARIES:
        distribution = importlib.metadata.distribution(library)
        for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (packages / name).symlink_to(str(distribution.locate_file(name)))
    return python


@pytest.fixture(scope="session")
def empty_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Python that has nothing but the standard library."""
    return _bare_python(tmp_path_factory.mktemp("empty"))


def serving(options: dict[str, t.Any]) -> dict[str, t.Any]:
    """The options of saveset_export, from those that describe one saveset beside the others."""
    one = {key: options[key] for key in ("name", "volume", "run_id", "saveset") if key in options}
    others = {key: value for key, value in options.items() if key not in one}
    if others.get("state") == "absent":
        return {**others, **({"name": one["name"]} if "name" in one else {})}
    return {"savesets": [one], **others}


def served(result: dict[str, t.Any]) -> dict[str, t.Any]:
    """What saveset_export has returned, with its only export in ``export`` and ``psk``, or as failed by its problem."""
    exports = result.get("exports")
    if not isinstance(exports, dict) or len(exports) != 1:
        return {"export": {}, "psk": "", **result}
    ((name, told),) = exports.items()
    failed = {"failed": True, "msg": f"Export {name}: {told['problem']}"} if told["problem"] else {}
    return {**result, "export": told["export"], "psk": result["psks"].get(name, ""), **failed}
