# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Savesets served over NBD, nothing restored first: exports as nbd_exports knows them, with the engine inside nbdkit.

nbdkit outlives the module and what Ansible sent for it, so each export has its own copy of the engine, one archive
beside its record. The repository's key goes to nbdkit through a pipe that is read once. What is decrypted is in memory
alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import os
import time

from ansible_collections.openisb.backup.plugins.module_utils import processes
from ansible_collections.openisb.backup.plugins.module_utils.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.saveset import lease, memory, tool
from ansible_collections.openisb.backup.plugins.module_utils.saveset.cli import nbdplugin, server
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import open_store

#: Seconds until a killed nbdkit must be gone with all its threads.
REAPED_S = 5.0
#: Bytes: less is not worth a cache, beside what the engine keeps by itself.
LEAST_CACHE = 16 << 20


class SavesetExports(Exports):
    """The exports recorded below ``run_dir``, those of savesets among them."""

    def serve(self, repository, info, facts, address, tls, cache, readahead):
        """Serve the saveset ``info`` of a repository, and return the export's record.

        ``cache``: bytes of what was read that nbdkit may keep, in memory. Where there is not room for it, it keeps less
        or nothing, and the record tells how much.

        nbdkit itself holds the lease by which nothing is pruned that the saveset uses: as long as it lives, and no
        longer. ``facts``: of the record: name, run_id (of whom it is ended with) and what is only recorded.
        """
        nbdkit = server.find_nbdkit()
        order = nbdplugin.encode_order(repository, info, readahead, lease=True)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        try:
            layers = self._layers(facts["name"], cache)
            facts = dict(facts, path=repository.location, readonly=True, cache=layers.cache)
            script = self._write_engine(facts["name"])
            with server.order_pipe(order) as pipe:
                words = server.plugin_words(layers, script, processes.FIRST_INHERITED)
                return self.run(
                    facts, address, tls, nbdkit, words, [pipe], server.environment(layers.scratch), server.START_S
                )
        except BaseException:
            self.stop(facts["name"])
            raise

    def _layers(self, name, cache):
        """What may be kept of ``cache`` bytes, promised to this export for as long as it is there."""
        scratch = memory.folder() if cache else ""
        if not scratch:
            return server.Layers()
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            # Half of what is left, so that the exports to come and everything else find room, too.
            granted = min(cache, (memory.room(scratch) - self._promised(scratch)) // 2)
            if granted < LEAST_CACHE:
                return server.Layers()
            with open(self._file(name, "cache"), "w", encoding="ascii") as stream:
                stream.write(f"{granted}")
        finally:
            os.close(folder)
        return server.Layers(cache=granted, scratch=scratch)

    def _promised(self, scratch):
        """Bytes that other exports may yet put into memory below ``scratch``."""
        promised = 0
        for path in glob.glob(os.path.join(glob.escape(self.folder), "*.cache")):
            with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as stream:
                record = self.get(os.path.basename(path)[: -len(".cache")])
                promised += max(0, int(stream.read()) - (_used(record["pid"], scratch) if record else 0))
        return promised

    def _write_engine(self, name):
        """Write what nbdkit is to run; the path of the script."""
        engine, script = self._file(name, "pyz"), self._file(name, "py")
        with open(engine, "wb") as stream:
            stream.write(tool.build())
        server.write_script(script, engine)
        return script

    def end(self, name):
        """End an export and forget it, also the lease of one that had to be killed. Fine where there is none."""
        record = self.get(name)
        if record is None:
            return
        self.stop(name, server.END_S)
        _wait_until_reaped(record["pid"])
        if os.path.isdir(record["path"]):
            lease.sweep(open_store(record["path"]))


def _used(pid, scratch):
    """Bytes of files without a name that a process has below ``scratch``."""
    device, used = os.stat(scratch).st_dev, 0
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        with contextlib.suppress(OSError):
            status = os.stat(path)
            used += status.st_blocks * 512 if status.st_dev == device and not status.st_nlink else 0
    return used


def _wait_until_reaped(pid):
    """A killed process holds its locks until the last of its threads is gone, which is when init has reaped it."""
    deadline = time.monotonic() + REAPED_S
    while pid and os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)
