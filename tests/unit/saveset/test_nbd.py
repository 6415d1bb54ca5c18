# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""NBD exports as source and target, served by a real nbdkit on a loopback port."""

from __future__ import annotations

import contextlib
import filecmp
import os
import shutil
import socket
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.backup.addresses import with_nbd_key
from ansible_collections.openisb.backup.plugins.module_utils.control.answers import nbd_address
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_addresses import check_of_host
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps, errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.extent import HOLE
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import source, target

from .conftest import MIB, NOON, Lab, MakeImage, noise, text

Serve = t.Callable[..., str]

pytestmark = pytest.mark.skipif(
    deps.nbd is None or not shutil.which("nbdkit"), reason="needs nbdkit and the Python module nbd (python3-libnbd)"
)


@pytest.fixture
def serve(tmp_path: Path) -> t.Iterator[Serve]:
    """Serve something with nbdkit on a free loopback port; returns its URI."""
    with contextlib.ExitStack() as stack:

        def begin(*arguments: str) -> str:
            with socket.create_server(("127.0.0.1", 0)) as probe:
                port = probe.getsockname()[1]
            command = ["nbdkit", "--foreground", "--exit-with-parent", "--ipaddr", "127.0.0.1", "--port", str(port)]
            server = subprocess.Popen([*command, *arguments], stderr=subprocess.DEVNULL)
            stack.callback(server.wait)
            stack.callback(server.terminate)
            _wait_for(port)
            return f"nbd://127.0.0.1:{port}/"

        yield begin


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def test_round_trip_over_nbd(lab: Lab, mixed: Path, serve: Serve) -> None:
    saveset = lab.backup(serve("--readonly", "file", str(mixed)))
    assert saveset.info.digest == lab.backup(mixed).info.digest
    assert saveset.stats.bytes_read < mixed.stat().st_size
    assert saveset.info.origin["source"].startswith("nbd://")
    output = lab.folder / "output"
    output.write_bytes(b"\xaa" * saveset.size)
    uri = serve("file", str(output))
    with target.open_target(uri, saveset.size) as opened:
        saveset.restore(opened)
    assert filecmp.cmp(mixed, output, shallow=False)


def test_holes_are_not_read(lab: Lab, make_image: MakeImage, serve: Serve) -> None:
    image = make_image("sparse", 3000 * MIB, [(2000 * MIB, text(MIB))])
    uri = serve("--readonly", "file", str(image))
    with source.open_source(uri) as opened:
        extents = list(opened.extents())
        assert sum(extent.length for extent in extents) == opened.size == 3000 * MIB
        assert sum(extent.length for extent in extents if extent.kind == HOLE) == 2999 * MIB
    saveset = lab.backup(uri)
    assert saveset.stats.bytes_read == MIB
    assert saveset.read(2000 * MIB - 5, 30) == bytes(5) + text(MIB)[:25]


def test_a_server_without_extents_is_read_whole(lab: Lab, mixed: Path, serve: Serve) -> None:
    uri = serve("--readonly", "--filter=noextents", "file", str(mixed))
    saveset = lab.backup(uri)
    assert saveset.stats.bytes_read == mixed.stat().st_size
    assert filecmp.cmp(mixed, lab.restore(saveset), shallow=False)


@pytest.mark.parametrize("filters", [["nozero"], ["nozero", "noparallel"], ["noparallel"]])
def test_targets_that_can_do_less(lab: Lab, mixed: Path, serve: Serve, filters: list[str]) -> None:
    saveset = lab.backup(mixed)
    output = lab.folder / "output"
    output.write_bytes(os.urandom(saveset.size))
    uri = serve(*[f"--filter={name}" for name in filters], "file", str(output))
    with target.open_target(uri, saveset.size) as opened:
        saveset.restore(opened, workers=3)
    assert filecmp.cmp(mixed, output, shallow=False)


def test_refusals(lab: Lab, make_image: MakeImage, serve: Serve) -> None:
    image = make_image("small", MIB, [(0, noise(MIB))])
    with pytest.raises(errors.TargetTooSmall, match="has 1048576 bytes, but the volume needs 1048577"):
        target.open_target(serve("file", str(image)), MIB + 1)
    with pytest.raises(errors.TargetError, match="read-only"):
        target.open_target(serve("--readonly", "file", str(image)), MIB)
    for open_it in (source.open_source, lambda uri: target.open_target(uri, 1)):
        with pytest.raises((errors.SourceError, errors.TargetError), match="Check that the NBD server runs"):
            open_it("nbd://127.0.0.1:1/")


def test_a_server_that_fails_while_read_makes_no_saveset(lab: Lab, make_image: MakeImage, serve: Serve) -> None:
    image = make_image("failing", 16 * MIB, [(0, noise(16 * MIB))])
    uri = serve("--readonly", "--filter=error", "file", str(image), "error-pread-rate=100%", "error=EIO")
    with source.open_source(uri) as opened, pytest.raises(errors.SourceError, match="reading .* bytes at offset"):
        lab.open().backup(opened, BackupRequest(volume="fs1/m", run_id="r", time=NOON, verdict="x"))
    assert lab.open().savesets() == [] and lab.files("tmp") == []


@pytest.mark.parametrize("filters", [[], ["noparallel", "nozero"]])
def test_only_what_differs_is_written_over_nbd(lab: Lab, mixed: Path, serve: Serve, filters: list[str]) -> None:
    saveset = lab.backup(mixed)
    output = lab.restore(saveset)
    with open(output, "r+b") as stream:
        stream.seek(MIB + 100 * 1024)
        stream.write(b"changed")
        stream.seek(3 * MIB)
        stream.write(b"not zero")
    uri = serve(*[f"--filter={name}" for name in filters], "file", str(output))
    with target.open_target(uri, saveset.size) as opened:
        stats = saveset.restore(opened, only_changed=True, check=True)
    assert (stats.bytes_written, stats.bytes_zeroed, stats.bytes_checked) == (64 * 1024, 64 * 1024, saveset.size)
    assert filecmp.cmp(mixed, output, shallow=False)


def test_a_slow_source_is_read_with_pauses(lab: Lab, make_image: MakeImage, serve: Serve) -> None:
    """The guard tells how many reads were slow, and for how long it held the backup back."""
    uri = serve(
        "--readonly", "--filter=delay", "file", str(make_image("slow", 8 * MIB, [(0, noise(8 * MIB))])), "rdelay=30ms"
    )
    held = lab.backup(uri, read_latency=0.01, workers=2).stats
    assert held.slow_reads == 8 and 0.05 < held.seconds_paused < held.seconds
    free = lab.backup(uri, read_latency=20.0, workers=2).stats
    assert (free.slow_reads, free.seconds_paused) == (0, 0.0)
    assert held.bytes_read == free.bytes_read == 8 * MIB


@pytest.mark.parametrize("address", ["::1", "127.0.0.1", "localhost"])
@pytest.mark.parametrize("tls", [True, False])
def test_an_export_of_any_address_is_read_and_written(tmp_path: Path, address: str, tls: bool) -> None:
    """With the export and the address as a run makes them."""
    disk = tmp_path / "disk"
    disk.write_bytes(noise(MIB))
    exports = Exports(str(tmp_path / "run"))
    record = exports.start("e.1", str(disk), address, tls, False, "isb-20261123T021500Z-4f1c2a")
    try:
        uri = nbd_address({"export": record}, {"address": address, "tls": tls})
        check_of_host(uri, address)
        with with_nbd_key(uri, exports.key("e.1")) as whole:
            with source.open_source(whole) as opened:
                buffer = bytearray(MIB)
                opened.read(0, memoryview(buffer))
                assert opened.size == MIB and buffer == disk.read_bytes()
            with target.open_target(whole, MIB) as writing:
                writing.write(4096, b"written" * 512)
                writing.flush()
    finally:
        exports.stop("e.1")
    assert disk.read_bytes()[4096:].startswith(b"written")


def test_nobody_at_the_address_is_told_of_as_any_other_failure() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as probe:
        port = probe.getsockname()[1]
    with (
        with_nbd_key(f"nbds://openisb@[::1]:{port}/e", "0" * 64) as uri,
        pytest.raises(errors.SourceError, match="Connection refused.*Check that the NBD server runs"),
    ):
        source.open_source(uri)
