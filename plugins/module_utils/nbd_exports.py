# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exports of files and devices over NBD, each served by its own nbdkit and known by a small record in ``run_dir``.

With TLS an export has a key of its own (pre-shared, made here): whoever has it may connect, and all is encrypted.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import os
import secrets
import shutil
import socket
import tempfile
import time

from ansible_collections.openisb.backup.plugins.module_utils import processes
from ansible_collections.openisb.backup.plugins.module_utils.nbd_addresses import USER, address_of
from ansible_collections.openisb.backup.plugins.module_utils.saveset import memory
from ansible_collections.openisb.backup.plugins.module_utils.saveset.tls import prefer_aes

START_TIMEOUT = 10.0
#: What an export may have below ``run_dir``; the record goes last, so that what is left is always known.
ENDINGS = ("log", "psk", "pid", "py", "pyz", "tls", "cache", "new", "json")


class ExportError(Exception):
    """An export cannot be started or ended; the text names it, the cause and the way out."""


class Exports:
    """The exports recorded below ``run_dir``."""

    def __init__(self, run_dir):
        self.folder = os.path.join(run_dir, "exports")

    def list(self):
        """Records of all exports, running or not: dicts of name, run_id, path, readonly, uri, port, pid, ticks,
        running."""
        if not os.path.isdir(self.folder):
            return []
        names = sorted(name[:-5] for name in os.listdir(self.folder) if name.endswith(".json"))
        return [record for record in map(self.get, names) if record]

    def get(self, name):
        """The record of one export, or None."""
        try:
            with open(self._file(name, "json"), encoding="utf-8") as stream:
                record = json.load(stream)
        except FileNotFoundError:
            return None
        if not record["pid"]:  # its maker was killed in the middle
            record["pid"], record["ticks"] = processes.find(self._file(name, "pid")) or (0, None)
        record["running"] = processes.is_running(record["pid"], record["ticks"])
        return record

    def key(self, name):
        """The key of an export with TLS, as hex digits; None for one without."""
        try:
            with open(self._file(name, "psk"), encoding="ascii") as stream:
                return stream.read().strip().rpartition(":")[2]
        except FileNotFoundError:
            return None

    def start(self, name, path, address, tls, readonly, run_id, held=None):
        """Serve ``path`` at ``address`` (name or number; the port is chosen), and return the export's record.

        ``held``: a claim.Held of the path. nbdkit gets its descriptor, so that the path is held as long as it lives.
        """
        if not os.path.exists(path):
            raise ExportError(f"{path} is not there, so it cannot be exported")
        facts = {"name": name, "run_id": run_id, "path": path, "readonly": readonly}
        mode = ["--readonly"] if readonly else []
        words = [*mode, "--exportname", name, "file", held.path if held else path]
        record = self.run(facts, address, tls, _nbdkit(), words, [held.fd] if held else [])
        if held and not held.is_still_at_its_path():
            self.stop(name)
            raise ExportError(f"{path} was exchanged while it was exported: let nothing else change it, and try again")
        return record

    def run(self, facts, address, tls, nbdkit, words, inherited=(), environment=None, timeout=START_TIMEOUT):
        """Have nbdkit serve at ``address``, and return the export's record.

        ``facts``: of the record: name, run_id, path, readonly and whatever else. ``words``: nbdkit's, but for those
        that say where it listens and with which key. ``inherited`` and ``environment``: see processes.spawn_orphan().
        """
        name = facts["name"]
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        _check_encrypted(address, tls)
        environment = dict(os.environ if environment is None else environment)
        # Recorded before it is started: whoever is killed in between leaves nothing that nobody knows of.
        record = dict(facts, uri="", port=0, pid=0, ticks=None)
        try:
            with _listen(address) as listener:
                port = listener.getsockname()[1]
                record.update(port=port, uri=address_of(address, port, name, tls))
                self._write(record)
                tls_words = ["--tls=require", "--tls-psk=" + self._new_key(name)] if tls else ["--tls=off"]
                environment.update(prefer_aes(self._file(name, "tls")) if tls else {})
                command = [nbdkit, "--pidfile", self._file(name, "pid"), *tls_words, *words]
                record["pid"] = processes.spawn_orphan(
                    command, self._file(name, "log"), environment, listener.fileno(), inherited
                )
            record["ticks"] = processes.start_ticks(record["pid"])
            self._write(record)
            if not _answers(record, address, port, timeout):
                raise ExportError(
                    "nbdkit did not start to serve {}: {}".format(facts["path"], self._log(name) or "it gave no reason")
                )
        except BaseException:
            self.stop(name)
            raise
        record["running"] = True
        return record

    def change(self, name, **facts):
        """Record other facts of an export, and return the record."""
        record = dict(self.get(name), **facts)
        self._write({key: value for key, value in record.items() if key != "running"})
        return record

    def stop(self, name, grace=5.0):
        """End an export and forget it. Fine where there is none. ``grace``: seconds that it may take to end."""
        record = self.get(name)
        if record and not processes.stop(record["pid"], record["ticks"], grace):
            raise ExportError(f"nbdkit (process {record['pid']}) that serves {record['path']} does not end")
        for ending in ENDINGS:
            _remove(self._file(name, ending))

    def _new_key(self, name):
        """Make the export's key; where ``run_dir`` is on a disk, in memory elsewhere, with a link to it."""
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

    def _write(self, record):
        temporary = self._file(record["name"], "new")
        with open(temporary, "w", encoding="utf-8") as stream:
            json.dump(record, stream)
        os.replace(temporary, self._file(record["name"], "json"))

    def _log(self, name):
        try:
            with open(self._file(name, "log"), encoding="utf-8", errors="replace") as stream:
                return stream.read().strip()
        except FileNotFoundError:  # it ended before it could become nbdkit
            return ""

    def _file(self, name, ending):
        return os.path.join(self.folder, f"{name}.{ending}")


def _remove(path):
    """Remove a file, or a link and what it leads to, where it is there."""
    if os.path.islink(path):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.readlink(path))
    if os.path.lexists(path):
        os.unlink(path)


def _nbdkit():
    nbdkit = shutil.which("nbdkit", path="/usr/local/bin:/usr/bin:/usr/local/sbin:/usr/sbin:/sbin:/bin")
    if nbdkit is None:
        raise ExportError("nbdkit is not installed on this host: install the package nbdkit")
    return nbdkit


def _check_encrypted(address, tls):
    numbers = {entry[4][0] for entry in _resolve(address)}
    if not tls and not all(ipaddress.ip_address(number).is_loopback for number in numbers):
        raise ExportError(
            f"without TLS anybody who reaches {address} could read the export: use TLS, or an address of this host "
            "alone"
        )


def _resolve(address):
    try:
        return socket.getaddrinfo(address, 0, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        raise ExportError(
            f"the address of {address} is not known on this host ({error}): correct openisb_data_address"
        ) from error


def _listen(address):
    family, kind, protocol, dummy, where = _resolve(address)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.bind(where)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise ExportError(f"cannot listen at {address}: {error}: correct openisb_data_address") from error
    return listener


def _answers(record, address, port, timeout):
    """Whether nbdkit takes connections: it greets whoever connects."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline and processes.is_running(record["pid"], record["ticks"]):
        try:
            with socket.create_connection((address, port), timeout=1.0) as probe:
                return probe.recv(8) == b"NBDMAGIC"
        except OSError:
            time.sleep(0.02)
    return False
