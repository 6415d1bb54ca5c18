# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Savesets served over NBD without restoring them first: exports as in nbd_exports, with the engine inside nbdkit.

nbdkit outlives the module and the files that Ansible sent for it, so each export has its own copy of the engine, an
archive beside its record. The repository's key goes to nbdkit through a pipe that is read once. Decrypted data is only
in memory.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import glob
import os
import time

from ..host import orphans
from ..host.nbd_exports import Exports
from ..host.records import Record
from ..saveset.base import memory
from ..saveset.collect import lease
from ..saveset.format.commit import SavesetInfo
from ..saveset.program import tool
from ..saveset.repository import Repository
from ..saveset.serve import nbdplugin, server
from ..saveset.store.registry import open_store

#: Seconds until a killed nbdkit must be gone with all its threads.
REAPED_S = 5.0
#: Bytes: a smaller cache is not worthwhile, because the engine has a cache of its own.
LEAST_CACHE = 16 << 20


class SavesetExports(Exports):
    """The exports recorded below ``run_dir``, including those of savesets. Threads may start several at once."""

    @functools.cached_property
    def _nbdkit(self) -> str:
        return server.find_nbdkit()

    @functools.cached_property
    def _engine(self) -> bytes:
        """The archive that each export gets a copy of."""
        return tool.build()

    def serve(
        self,
        repository: Repository,
        info: SavesetInfo,
        facts: Record,
        address: str,
        tls: bool,
        cache: int,
        readahead: bool,
    ) -> Record:
        """Serve the saveset ``info`` of a repository, and return the export's record.

        ``cache``: bytes of what was read that nbdkit may keep in memory. If memory is short it keeps less or nothing,
        and the record says how much.

        nbdkit itself holds the lease that keeps prune from removing what the saveset uses: exactly as long as it runs.
        ``facts``: for the record: name, run_id (of the run or drill that it ends with) and any that are only recorded.
        """
        nbdkit = self._nbdkit
        order = nbdplugin.encode_order(repository, info, readahead, lease=True)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        try:
            layers = self._layers(facts["name"], cache)
            facts = dict(facts, path=repository.location, readonly=True, cache=layers.cache)
            script = self._write_engine(facts["name"])
            # We take a lease as well, so that the caller gets the error where none can be written.
            with repository.reading(lease.SERVE, info), server.order_pipe(order) as pipe:
                words = server.plugin_words(layers, script, orphans.FIRST_INHERITED)
                return self.run(
                    facts, address, tls, nbdkit, words, [pipe], server.environment(layers.scratch), server.START_S
                )
        except BaseException:
            self.stop(facts["name"])
            raise

    def _layers(self, name: str, cache: int) -> server.Layers:
        """The cache that can be granted, of at most ``cache`` bytes, reserved for this export while it exists."""
        scratch = memory.folder() if cache else ""
        if not scratch:
            return server.Layers()
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            # Half of what is left, so that later exports and everything else get memory as well.
            granted = min(cache, (memory.room(scratch) - self._promised(scratch)) // 2)
            if granted < LEAST_CACHE:
                return server.Layers()
            with open(self._file(name, "cache"), "w", encoding="ascii") as stream:
                stream.write(f"{granted}")
        finally:
            os.close(folder)
        return server.Layers(cache=granted, scratch=scratch)

    def _promised(self, scratch: str) -> int:
        """Bytes of memory below ``scratch`` that other exports have reserved but not used yet."""
        promised = 0
        for path in glob.glob(os.path.join(glob.escape(self.folder), "*.cache")):
            with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
                record = self.get(os.path.basename(path)[: -len(".cache")])
                promised += max(0, int(stream.read()) - (_used(record["pid"], scratch) if record else 0))
        return promised

    def _write_engine(self, name: str) -> str:
        """Write the engine and the script that nbdkit runs, and return the script's path."""
        engine, script = self._file(name, "pyz"), self._file(name, "py")
        with open(engine, "wb") as stream:
            stream.write(self._engine)
        server.write_script(script, engine)
        return script

    def end(self, name: str) -> None:
        """End an export and forget it, and remove the lease of one that had to be killed; idempotent."""
        record = self.get(name)
        if record is None:
            return
        self.stop(name, server.END_S)
        _wait_until_reaped(record["pid"])
        if "saveset" in record:
            lease.sweep(open_store(record["path"]))


def _used(pid: int, scratch: str) -> int:
    """Bytes of unlinked files that a process has open below ``scratch``."""
    device, used = os.stat(scratch).st_dev, 0
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            used += status.st_blocks * 512 if status.st_dev == device and not status.st_nlink else 0
    return used


def _wait_until_reaped(pid: int) -> None:
    """Wait until init has reaped a killed process: it holds its locks until the last of its threads is gone."""
    deadline = time.monotonic() + REAPED_S
    while pid and os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
