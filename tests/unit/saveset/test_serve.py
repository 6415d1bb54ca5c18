# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""isb-saveset serve: a real nbdkit over a saveset, read through libnbd by somebody who has only the repository."""

from __future__ import annotations

import concurrent.futures
import contextlib
import filecmp
import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps, errors, memory
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.extent import DATA, HOLE, ZERO
from ansible_collections.openisb.backup.plugins.module_utils.saveset.cli import endpoint, main
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy
from ansible_collections.openisb.backup.plugins.module_utils.saveset.serve import server as server_module

from .conftest import KIB, MIB, Lab, MakeImage, nameless, noise, text

CHUNK = 64 * KIB
SIZE = 40 * MIB + 512
NBD_FLAGS = {HOLE: 3, ZERO: 2, DATA: 0}

Serve = t.Callable[..., "Server"]


def _why_not() -> str:
    """Why a saveset cannot be served, or be read, on this machine; empty when it can."""
    if deps.nbd is None or not shutil.which("nbdcopy"):
        return "needs the Python module nbd (python3-libnbd) and nbdcopy (libnbd-bin)"
    try:
        server_module.find_nbdkit()
    except errors.MissingLibrary as error:
        return str(error)
    return ""


needs_nbdkit = pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "never skipped")


class Server:
    """A running ``isb-saveset serve``; ``folder`` is its own one, ``temporary`` where it could put temporary files."""

    def __init__(self, python: Path, lab: Lab, temporary: Path, *arguments: str) -> None:
        command = [str(python), "-I", str(lab.path / "isb-saveset.pyz"), "serve"]
        self.process = subprocess.Popen(
            [*command, *arguments],
            env={"TMPDIR": str(temporary), "OPENISB_PASSPHRASE": "correct horse"},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.told = ""
        for line in self.process.stdout:
            self.told += line
            if line.startswith("Ctrl-C"):
                break
        else:
            raise AssertionError(self.process.communicate()[1])
        self.uri = next(line.strip() for line in self.told.splitlines() if line.startswith("  nbd"))
        words = Path(f"/proc/{self.nbdkits()[0]}/cmdline").read_text().split("\0")
        self.folder = next(Path(word).parent for word in words if word.endswith("/saveset.py"))

    def connect(self, *contexts: str) -> t.Any:
        """A connection by libnbd."""
        handle = deps.nbd.NBD()
        for context in contexts:
            handle.add_meta_context(context)
        handle.set_uri_allow_local_file(True)
        handle.connect_uri(self.uri)
        return handle

    def nbdkits(self) -> list[int]:
        """The processes that it started."""
        path = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        return [int(pid) for pid in path.read_text().split()]

    def end(self, number: int = signal.SIGTERM) -> tuple[int, str]:
        """Signal it to end; its exit status, and what it wrote to stderr."""
        self.process.send_signal(number)
        _out, err = self.process.communicate(timeout=30)
        return self.process.returncode, err


@pytest.fixture
def short_folder() -> t.Iterator[Path]:
    """A folder with a short path: those of unix sockets may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="isb") as folder:
        yield Path(folder)


@pytest.fixture
def volume(lab: Lab, make_image: MakeImage) -> Path:
    """What is backed up: data that is kept whole and in pieces, zeros, holes, and an odd size."""
    pieces = [(0, noise(9 * MIB)), (12 * MIB, bytes(2 * MIB)), (20 * MIB + 100, text(5 * MIB)), (SIZE - 5, b"ended")]
    image = make_image("volume", SIZE, pieces)
    lab.backup(image, run_id="older")
    with open(image, "r+b") as stream:
        stream.seek(3 * MIB + 77)
        stream.write(b"changed since")
    lab.backup(image)
    return image


@pytest.fixture
def serve(lab: Lab, volume: Path, bare_python: Path, short_folder: Path) -> t.Iterator[Serve]:
    """Start servers; they are ended with the test."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str) -> Server:
            folder = short_folder / "tmp"
            folder.mkdir(exist_ok=True)
            server = Server(bare_python, lab, folder, *(arguments or ("fs1/m",)))
            stack.callback(shutil.rmtree, server.folder, ignore_errors=True)  # of one that was killed
            stack.callback(server.process.communicate)
            stack.callback(server.process.terminate)
            return server

        yield start


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def alive(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition: t.Callable[[], bool]) -> None:
    """Wait some seconds at most."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def content(lab: Lab) -> dict[str, tuple[str, int]]:
    """Hash and time of every file of the repository."""
    paths = lab.files(".")
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in paths}


@needs_nbdkit
@pytest.mark.parametrize("options", [[], ["--readahead"], ["--cache", "16M"], ["--cow"]], ids=" ".join)
def test_the_whole_volume_bit_for_bit(serve: Serve, volume: Path, short_folder: Path, options: list[str]) -> None:
    server = serve("fs1/m", *options)
    copy = short_folder / "copy"
    subprocess.run(["nbdcopy", server.uri, str(copy)], check=True)
    assert filecmp.cmp(volume, copy, shallow=False)


@needs_nbdkit
def test_an_older_saveset_is_served_as_it_was(serve: Serve, volume: Path, short_folder: Path) -> None:
    server = serve("fs1/m:older", "--socket", str(short_folder / "older"))
    assert server.uri == f"nbd+unix:///?socket={short_folder}/older"
    handle = server.connect()
    assert bytes(handle.pread(13, 3 * MIB + 77)) == noise(9 * MIB)[3 * MIB + 77 :][:13]
    assert bytes(serve().connect().pread(13, 3 * MIB + 77)) == b"changed since"


@needs_nbdkit
def test_random_ranges_over_several_connections_at_once(serve: Serve, volume: Path) -> None:
    server = serve()
    expected = volume.read_bytes()
    generator = random.Random(11)
    offsets = [generator.randrange(SIZE - 1) for _number in range(400)]
    offsets += [number * CHUNK for number in range(3)] + [SIZE - 1, SIZE - CHUNK - 1]
    ranges = [(offset, min(generator.choice([1, 512, 4096, 70_000, 1 << 20]), SIZE - offset)) for offset in offsets]
    local = threading.local()

    def read(item: tuple[int, int]) -> bool:
        if not hasattr(local, "handle"):
            local.handle = server.connect()
        offset, length = item
        return bytes(local.handle.pread(length, offset)) == expected[offset : offset + length]

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        assert all(pool.map(read, ranges))


@needs_nbdkit
def test_what_it_offers(serve: Serve) -> None:
    handle = serve().connect()
    assert handle.get_size() == SIZE and handle.is_read_only()
    assert handle.can_multi_conn() and handle.can_cache() and handle.is_rotational()
    handle.cache(MIB, 0)
    with pytest.raises(deps.nbd.Error):
        handle.pwrite(b"x" * 512, 0)


@needs_nbdkit
def test_extents(serve: Serve, lab: Lab) -> None:
    handle = serve().connect("base:allocation")
    found: list[tuple[int, int]] = []

    def collect(_context: str, _offset: int, entries: list[int], _error: t.Any) -> None:
        found.extend(zip(entries[::2], entries[1::2], strict=True))

    while sum(length for length, _flags in found) < SIZE:
        begin = sum(length for length, _flags in found)
        handle.block_status(SIZE - begin, begin, collect)
    merged: list[list[int]] = []
    for length, flags in found:
        if merged and merged[-1][1] == flags:
            merged[-1][0] += length
        else:
            merged.append([length, flags])
    expected = [[extent.length, NBD_FLAGS[extent.kind]] for extent in lab.open().find("fs1/m").extents()]
    assert merged == expected and {flags for _length, flags in merged} == {0, 2, 3}
    first: list[int] = []
    handle.block_status(20 * MIB, 5 * MIB, lambda _c, _o, entries, _e: first.extend(entries), deps.nbd.CMD_FLAG_REQ_ONE)
    assert first == [4 * MIB, 0]


def test_extents_of_a_range(lab: Lab, volume: Path) -> None:
    saveset = lab.open().find("fs1/m")
    whole = list(saveset.extents())
    kinds = [extent.kind for extent in whole for _byte in range(0, extent.length, 512)]
    generator = random.Random(5)
    for _number in range(60):
        offset = generator.randrange(0, SIZE, 512)
        length = generator.randrange(512, SIZE, 512)
        position = offset
        for extent in saveset.extents(offset, length):
            assert extent.offset == position and extent.length > 0
            assert set(kinds[extent.offset // 512 : -(-(extent.offset + extent.length) // 512)]) == {extent.kind}
            position += extent.length
        assert position == min(offset + length, SIZE)
    assert list(saveset.extents(SIZE, 512)) == list(saveset.extents(0, 0)) == []


@pytest.mark.slow
@needs_nbdkit
def test_what_is_written_with_cow_never_reaches_the_repository(
    serve: Serve, lab: Lab, volume: Path, short_folder: Path
) -> None:
    before = content(lab)
    server = serve("fs1/m", "--cow", "--scratch", str(short_folder))
    handle, other = server.connect(), server.connect()
    expected = bytearray(volume.read_bytes())
    for offset, data in ((0, b"a" * 5000), (11 * MIB + 3, b"b" * MIB), (SIZE - 512, b"c" * 512)):
        handle.pwrite(data, offset)
        expected[offset : offset + len(data)] = data
    handle.flush()
    for offset in range(0, SIZE, MIB):
        length = min(MIB, SIZE - offset)
        assert other.pread(length, offset) == expected[offset : offset + length]
    assert server.end()[0] == 0
    assert content(lab) == before
    assert sorted(path.name for path in short_folder.iterdir()) == ["tmp"]
    assert serve("fs1/m", "--cow").connect().pread(5000, 0) == volume.read_bytes()[:5000]


@needs_nbdkit
def test_a_served_saveset_is_in_memory_by_itself(serve: Serve) -> None:
    """Also what is written to it, and unless the user names a disk."""
    server = serve("fs1/m", "--cow", "--cache", "16M")
    handle = server.connect()
    handle.pwrite(b"written" * 1000, 0)
    handle.pread(MIB, 3 * MIB)
    (pid,) = server.nbdkits()
    files = nameless(pid)
    assert len(files) == 2 and all(in_memory for in_memory, _size in files)
    assert "on a disk" not in server.end()[1]


@needs_nbdkit
def test_who_names_a_disk_is_told(serve: Serve, short_folder: Path) -> None:
    if memory.is_in_memory(str(short_folder)):
        pytest.skip("the folder of temporary files is in memory here")
    server = serve("fs1/m", "--cow", "--scratch", str(short_folder))
    assert "it is on a disk. What is read and written is stored there in clear" in server.end()[1]


@needs_nbdkit
def test_what_is_served_is_not_collected_meanwhile(serve: Serve, lab: Lab, volume: Path) -> None:
    server = serve("fs1/m:older")
    forgotten = lab.open().prune(Policy(last=1))
    assert len(forgotten.forgotten) == 1 and forgotten.bytes_freed == 0
    assert [text.startswith("serve by process") for item in forgotten.waiting for text in item.leases] == [True]
    assert bytes(server.connect().pread(13, 3 * MIB + 77)) == noise(9 * MIB)[3 * MIB + 77 :][:13]
    assert server.end()[0] == 0
    assert lab.files("gc/leases") == []
    assert lab.open().prune(Policy(last=1)).bytes_freed > 0


@needs_nbdkit
def test_the_secret_is_seen_nowhere(serve: Serve) -> None:
    server = serve()
    (pid,) = server.nbdkits()
    for process, kind in ((pid, "cmdline"), (pid, "environ"), (server.process.pid, "cmdline")):
        assert b"horse" not in Path(f"/proc/{process}/{kind}").read_bytes()
    folder = server.folder
    assert memory.is_in_memory(str(folder))
    assert folder.stat().st_mode & 0o777 == 0o700
    files = sorted(path.name for path in folder.iterdir())
    assert files == ["pid", "saveset.py", "socket"]
    assert all(b"horse" not in (folder / name).read_bytes() for name in files[:2])
    assert (folder / "socket").stat().st_mode & 0o022 == 0  # to connect takes the right to write


@needs_nbdkit
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_ends_cleanly(serve: Serve, short_folder: Path, number: int) -> None:
    path = short_folder / "volume"
    server = serve("fs1/m", "--socket", str(path))
    (pid,) = server.nbdkits()
    handle = server.connect()
    assert path.is_socket()
    status, told = server.end(number)
    assert (status, told) == (0, "isb-saveset: ended; nothing is served any more\n")
    assert not alive(pid) and not server.folder.exists() and not path.exists()
    with pytest.raises(deps.nbd.Error):
        handle.pread(512, 0)


@needs_nbdkit
def test_ctrl_c_reaches_all_of_its_processes(serve: Serve) -> None:
    server = serve()
    (pid,) = server.nbdkits()
    os.killpg(server.process.pid, signal.SIGINT)
    assert server.process.wait(timeout=30) == 0
    assert not alive(pid) and not server.folder.exists()


@needs_nbdkit
def test_no_nbdkit_outlives_it(serve: Serve) -> None:
    server = serve()
    (pid,) = server.nbdkits()
    server.end(signal.SIGKILL)
    wait_until(lambda: not alive(pid))


@needs_nbdkit
def test_an_nbdkit_that_ends_is_told(serve: Serve) -> None:
    server = serve()
    (pid,) = server.nbdkits()
    os.kill(pid, signal.SIGKILL)
    _out, told = server.process.communicate(timeout=30)
    assert server.process.returncode == 1 and "nbdkit: it ended with status -9" in told
    assert not server.folder.exists()


@needs_nbdkit
def test_over_tcp_with_tls(serve: Serve, volume: Path, short_folder: Path) -> None:
    key, port = short_folder / "psk", free_port()
    server = serve("fs1/m", "--listen", f"127.0.0.1:{port}", "--tls-psk", str(key))
    assert server.uri == f"nbds://isb@127.0.0.1:{port}/?tls-psk-file={key}"
    assert key.stat().st_mode & 0o777 == 0o600 and key.read_text().startswith("isb:")
    assert server.connect().pread(70_000, 5) == volume.read_bytes()[5 : 5 + 70_000]
    good = server.uri
    wrong = short_folder / "wrong"
    wrong.write_text(f"isb:{'0' * 64}\n")
    for uri in (f"nbd://127.0.0.1:{port}/", good.replace(str(key), str(wrong))):
        server.uri = uri
        with pytest.raises(deps.nbd.Error):
            server.connect()
    server.end()
    assert key.exists()
    server = serve("fs1/m", "--listen", f"127.0.0.1:{port}")
    assert server.connect().get_size() == SIZE and str(server.folder) in server.uri


@needs_nbdkit
def test_over_tcp_without_tls_on_this_machine_alone(serve: Serve) -> None:
    port = free_port()
    server = serve("fs1/m", "--listen", f"127.0.0.1:{port}", "--no-tls")
    assert server.uri == f"nbd://127.0.0.1:{port}/" and server.connect().get_size() == SIZE


@needs_nbdkit
def test_damage_is_an_error_where_it_is_and_nowhere_else(serve: Serve, lab: Lab, volume: Path) -> None:
    pack = max(lab.files("packs"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[len(data) // 3] ^= 1
    pack.write_bytes(data)
    server = serve()
    handle = server.connect()
    expected = volume.read_bytes()
    bad = 0
    for offset in range(0, 9 * MIB, CHUNK):
        try:
            assert handle.pread(CHUNK, offset) == expected[offset : offset + CHUNK]
        except deps.nbd.Error as error:
            bad += 1
            assert error.errno == "EIO"
    assert 0 < bad < 9 * MIB // CHUNK // 2
    _status, told = server.end()
    assert str(pack.relative_to(lab.path)) in told and "Traceback" not in told


# -- what is refused


@pytest.fixture
def refused(
    lab: Lab, mixed: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> t.Callable[..., tuple[int, str]]:
    """Call serve in this process, and return its exit status and what it wrote to stderr."""
    lab.backup(mixed)
    monkeypatch.setenv("OPENISB_PASSPHRASE", "correct horse")

    def call(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        return main.main(["serve", "--repository", str(lab.path), *arguments]), capfd.readouterr().err

    return call


@needs_nbdkit
@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["--no-tls"], 2, "a unix socket has no TLS"),
        (["--tls-psk", "x"], 2, "TLS is for --listen"),
        (["--listen", "127.0.0.1", "--no-tls", "--tls-psk", "x"], 2, "TLS is for --listen"),
        (["--listen", "0.0.0.0", "--no-tls"], 2, "anyone who can reach 0.0.0.0 could read the volume"),
        (["--listen", "127.0.0.1:port"], 2, "it is not an address with a port"),
        (["--listen", "192.0.2.1:10809"], 1, "nbdkit: it ended with status 1"),
        (["--listen", "127.0.0.1", "--tls-psk", "/no/folder/psk"], 2, "it cannot be created"),
        (["--socket", "/dev/null"], 2, "it exists already"),
        (["--cache", "much"], 1, "the size 'much': it is not a size. Write it like 4G or 512M"),
        (["--cache", "999T"], 2, "of memory is available for it"),
        (["--cow", "--scratch", "/no/folder"], 2, "it is not a folder"),
    ],
)
def test_refusals(refused: t.Callable[..., tuple[int, str]], arguments: list[str], status: int, message: str) -> None:
    ended, told = refused("fs1/m", *arguments)
    assert ended == status and message in told and "Traceback" not in told


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("192.0.2.7", ("192.0.2.7", 10809)),
        ("dr1.example:9000", ("dr1.example", 9000)),
        ("2001:db8::7", ("2001:db8::7", 10809)),
        ("[2001:db8::7]:9000", ("2001:db8::7", 9000)),
    ],
)
def test_addresses(text: str, place: tuple[str, int]) -> None:
    assert endpoint.split_address(text) == place


def _fake_nbdkit(folder: Path, script: str) -> None:
    program = folder / "nbdkit"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (None, "nbdkit: it is not installed. Install it. On Debian: apt install nbdkit nbdkit-plugin-python"),
        ("exit 1", "it is not installed, or does not load. Install it. On Debian: apt install nbdkit-plugin-python"),
        ("echo python_version=3.4.1", "it is built for Python 3.4 and cannot use the libraries of Python"),
    ],
)
def test_what_nbdkit_lacks_is_told(
    refused: t.Callable[..., tuple[int, str]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str | None,
    message: str,
) -> None:
    if script:
        _fake_nbdkit(tmp_path, script)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server_module, "_PATH", str(tmp_path))
    status, told = refused("fs1/m")
    assert status == 1 and message in told


def test_a_key_that_only_writes_cannot_serve(
    lab: Lab, refused: t.Callable[..., tuple[int, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_nbdkit(tmp_path, f"echo python_version={'.'.join(map(str, sys.version_info[:3]))}")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    lab.open().key_files.add_writer(b"writes only", cost=lab.secret.cost)
    monkeypatch.setenv("OPENISB_PASSPHRASE", "writes only")
    status, told = refused("fs1/m")
    assert status == 1 and "write-only" in told
