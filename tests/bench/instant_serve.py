# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who serves a volume over TLS on loopback: the product, an older isb-saveset, or nbdkit with a plain file."""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "collections"))

from ansible_collections.openisb.backup.plugins.module_utils.backup.exports import SavesetExports  # noqa: E402
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports  # noqa: E402
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import Secret  # noqa: E402
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import Repository  # noqa: E402
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store  # noqa: E402

from .contender import PASSPHRASE  # noqa: E402

VOLUME = "bench/image"
_NAME = "bench"
_START_S = 60.0


class Address(t.NamedTuple):
    """Where a volume is served: the URI, and the file with the key."""

    uri: str
    psk: Path


Serve = t.Callable[[Path, Path], t.ContextManager[Address]]


@contextlib.contextmanager
def product(repository: Path, work: Path) -> t.Iterator[Address]:
    """The latest saveset of a repository, as the module saveset_export serves it."""
    exports = SavesetExports(str(work / "run"))
    opened = Repository.open(open_store(str(repository)), Secret(PASSPHRASE.encode()))
    info = opened.find(VOLUME).info
    try:
        record = exports.serve(opened, info, {"name": _NAME, "run_id": _NAME}, "127.0.0.1", True, 0, True)
        yield Address(record["uri"], Path(exports.folder, f"{_NAME}.psk"))
    finally:
        exports.end(_NAME)


@contextlib.contextmanager
def plain_file(path: Path, work: Path, readonly: bool = True) -> t.Iterator[Address]:
    """A file, as the module nbd_export serves it."""
    exports = Exports(str(work / "run"))
    try:
        record = exports.start(_NAME, str(path), "127.0.0.1", True, readonly, _NAME)
        yield Address(record["uri"], Path(exports.folder, f"{_NAME}.psk"))
    finally:
        exports.stop(_NAME, 1.0)


def older(archive: Path) -> Serve:
    """The latest saveset of a repository, as another version's isb-saveset.pyz serves it."""

    @contextlib.contextmanager
    def serve(repository: Path, work: Path) -> t.Iterator[Address]:
        key, port = work / "older.psk", _free_port()
        key.write_text(f"isb:{secrets.token_hex(32)}\n")
        words = ["serve", VOLUME, "--readahead", "--listen", f"127.0.0.1:{port}", "--tls-psk", str(key)]
        process = subprocess.Popen(
            [sys.executable, str(archive), *words, "--repository", str(repository)],
            env={**os.environ, "OPENISB_PASSPHRASE": PASSPHRASE},
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            if not any(line.startswith("Serving") for line in process.stdout):
                raise RuntimeError(f"{archive} did not start to serve")
            yield Address(f"nbds://isb@127.0.0.1:{port}/", key)
        finally:
            process.terminate()
            process.wait()

    return serve


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(condition: t.Callable[[], bool], what: str) -> None:
    """Wait some time for something that another process does."""
    deadline = time.monotonic() + _START_S
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} is not there after {_START_S:.0f} s")
        time.sleep(0.005)
