# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of files and devices over NBD, each served by its own nbdkit and recorded in a small file in ``run_dir``.

With TLS each export has its own pre-shared key, generated here: anyone who has it may connect, and all is encrypted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import secrets
import shutil
import socket
import tempfile
import time
from typing import TYPE_CHECKING, Any, List, Mapping, Sequence

from ..saveset.base import memory
from ..saveset.io.tls import prefer_aes
from . import nbdkit, orphans, processes, records, samples
from .nbd_addresses import USER, address_of
from .records import Record
from .users import PATH

if TYPE_CHECKING:
    from ..saveset.io.claim import Held

# Inside the class, list is its method.
RecordList = List[Record]
Words = List[str]

START_TIMEOUT = 10.0
#: The files that an export may have below ``run_dir``; the record is removed last, so that leftovers stay known.
ENDINGS = ("log", "psk", "pid", "py", "pyz", "tls", "cache", "sample", "json.new", "json")


class ExportError(Exception):
    """An export cannot be started or ended; the text names it, the cause and the remedy."""


class Exports:
    """The exports recorded below ``run_dir``."""

    def __init__(self, run_dir: str) -> None:
        self.folder = os.path.join(run_dir, "exports")

    def list(self) -> RecordList:
        """Records of all exports, running or not: dicts of name, run_id, path, readonly, uri, port, pid, ticks,
        running."""
        if not os.path.isdir(self.folder):
            return []
        names = sorted(name[:-5] for name in os.listdir(self.folder) if name.endswith(".json"))
        return [record for record in map(self.get, names) if record]

    def get(self, name: str) -> Record | None:
        """The record of one export, or None."""
        record = records.read(self._file(name, "json"))
        if record is None:
            return None
        if not record["pid"]:  # killed before the pid could be recorded
            record.update(processes.find(self._file(name, "pid")) or {"pid": 0, "ticks": None})
        record["running"] = processes.is_running(record)
        return record

    def key(self, name: str) -> str | None:
        """The key of an export with TLS, as hex digits; None for one without."""
        try:
            with open(self._file(name, "psk"), encoding="ascii") as stream:
                return stream.read().strip().rpartition(":")[2]
        except FileNotFoundError:
            return None

    def start(
        self, name: str, path: str, address: str, tls: bool, readonly: bool, run_id: str, held: Held | None = None
    ) -> Record:
        """Serve ``path`` at ``address`` (name or number; any free port), and return the export's record.

        ``held``: a claim.Held of the path. nbdkit inherits its descriptor, so the path stays claimed while it runs.
        """
        if not os.path.exists(path):
            raise ExportError(f"{path} does not exist, so it cannot be exported")
        facts = {"name": name, "run_id": run_id, "path": path, "readonly": readonly}
        mode = ["--readonly"] if readonly else []
        words = [*mode, "--exportname", name, "file", held.path if held else path]
        record = self.run(facts, address, tls, _nbdkit(), words, [held.fd] if held else [])
        if held and not held.is_still_at_its_path():
            self.stop(name)
            raise ExportError(f"{path} was replaced while it was exported: let nothing else change it, and try again")
        return record

    def start_sample(self, name: str, address: str, tls: bool, run_id: str) -> Record:
        """Serve samples.content() read-only, as start() serves a LUN, for at most samples.LIFETIME seconds."""
        self._forget_ended_samples()
        path = self._file(name, "sample")
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        with open(path, "wb") as stream:
            stream.write(samples.content(name))
        facts = {"name": name, "run_id": run_id, "path": path, "readonly": True, "sample": True}
        words = ["--readonly", "--exportname", name, "file", path]
        return self.run(facts, address, tls, _nbdkit(), words, lifetime=samples.LIFETIME)

    def _forget_ended_samples(self) -> None:
        """Forget the samples that nobody has stopped, and that have ended on their own."""
        for record in self.list():
            age = time.time() - os.path.getmtime(self._file(record["name"], "json"))
            if record.get("sample") and not record["running"] and age > samples.LIFETIME:
                self.stop(record["name"])

    def run(
        self,
        facts: Record,
        address: str,
        tls: bool,
        program: str,
        words: Words,
        inherited: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
        timeout: float = START_TIMEOUT,
        lifetime: int = 0,
    ) -> Record:
        """Start nbdkit at ``address``, and return the export's record.

        ``facts``: for the record: name, run_id, path, readonly and any others. ``words``: nbdkit's arguments, except
        those that say where it listens and with which key. The others: see orphans.spawn_orphan().
        """
        name = facts["name"]
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        _check_encrypted(address, tls)
        environment = dict(os.environ if environment is None else environment)
        # Recorded before it is started: if we are killed in between, nothing unknown is left.
        record = dict(facts, uri="", port=0, pid=0, ticks=None)
        try:
            with _listen(address) as listening:
                family, where = listening.family, listening.getsockname()
                port = where[1]
                record.update(port=port, uri=address_of(address, port, name, tls))
                self._write(record)
                tls_words = ["--tls=require", "--tls-psk=" + self._new_key(name)] if tls else ["--tls=off"]
                environment.update(prefer_aes(self._file(name, "tls")) if tls else {})
                command = [program, "--pidfile", self._file(name, "pid"), *tls_words, *words]
                pid = orphans.spawn_orphan(
                    command, self._file(name, "log"), environment, listening.fileno(), inherited, lifetime
                )
            record.update(processes.identity(pid))
            self._write(record)
            if not nbdkit.is_ready(record, lambda: nbdkit.greets(family, where), timeout):
                raise ExportError(
                    "nbdkit did not start to serve {}: {}".format(facts["path"], self._log(name) or "it gave no reason")
                )
        except BaseException:
            self.stop(name)
            raise
        record["running"] = True
        return record

    def change(self, name: str, **facts: Any) -> Record:
        """Change facts in the record of an export, and return the record."""
        before: Any = self.get(name)  # not None: callers name an export that exists
        record = dict(before, **facts)
        self._write({key: value for key, value in record.items() if key != "running"})
        return record

    def stop(self, name: str, grace: float = 5.0) -> None:
        """End an export and forget it; idempotent. ``grace``: seconds that it may take to end."""
        record = self.get(name)
        if record and not processes.stop(record, grace):
            raise ExportError(f"nbdkit (process {record['pid']}), which serves {record['path']}, does not end")
        for ending in ENDINGS:
            _remove(self._file(name, ending))

    def _new_key(self, name: str) -> str:
        """Generate the export's key; where ``run_dir`` is on a disk, in memory elsewhere, with a symlink to it."""
        path = self._file(name, "psk")
        _remove(path)
        elsewhere = "" if memory.is_in_memory(self.folder) else memory.folder()
        if elsewhere:
            descriptor, target = tempfile.mkstemp(prefix="openisb-psk.", dir=elsewhere)
            os.symlink(target, path)
        else:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="ascii") as stream:
            stream.write(f"{USER}:{secrets.token_hex(32)}\n")
        return path

    def _write(self, record: Record) -> None:
        records.write(self._file(record["name"], "json"), record)

    def _log(self, name: str) -> str:
        try:
            with open(self._file(name, "log"), encoding="utf-8", errors="replace") as stream:
                return stream.read().strip()
        except FileNotFoundError:  # it ended before it could become nbdkit
            return ""

    def _file(self, name: str, ending: str) -> str:
        return os.path.join(self.folder, f"{name}.{ending}")


def _remove(path: str) -> None:
    """Remove a file, or a symlink and its target, if it exists."""
    if os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.readlink(path))
    if os.path.lexists(path):
        os.unlink(path)


def _nbdkit() -> str:
    found = shutil.which("nbdkit", path=PATH)
    if found is None:
        raise ExportError("nbdkit is not installed on this host: install the package nbdkit")
    return found


def _check_encrypted(address: str, tls: bool) -> None:
    numbers = {entry[4][0] for entry in _resolve(address)}
    if not tls and not all(ipaddress.ip_address(number).is_loopback for number in numbers):
        raise ExportError(
            f"without TLS anyone who can reach {address} could read the export: use TLS, or a loopback address"
        )


def _resolve(address: str) -> list[tuple[Any, ...]]:
    try:
        return socket.getaddrinfo(address, 0, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        raise ExportError(f"this host cannot resolve {address} ({error}): correct openisb_data_address") from error


def _listen(address: str) -> socket.socket:
    family, kind, protocol, dummy, where = _resolve(address)[0]
    listening = socket.socket(family, kind, protocol)
    try:
        listening.bind(where)
        listening.listen(64)
    except OSError as error:
        listening.close()
        raise ExportError(f"cannot listen at {address}: {error}: correct openisb_data_address") from error
    return listening
