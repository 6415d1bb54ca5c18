# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Savesets served over NBD, nothing restored first: exports as nbd_exports knows them, with the engine inside nbdkit.

nbdkit outlives the module and what Ansible sent for it, so each export has its own copy of the engine, one archive
beside its record. The repository's key goes to nbdkit through a pipe that is read once.
"""

from __future__ import annotations

import os
import time

from ansible_collections.openisb.backup.plugins.module_utils import processes
from ansible_collections.openisb.backup.plugins.module_utils.nbd_exports import ExportError, Exports
from ansible_collections.openisb.backup.plugins.module_utils.saveset import lease, tool
from ansible_collections.openisb.backup.plugins.module_utils.saveset.cli import nbdplugin, server
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import open_store

#: Seconds until a killed nbdkit must be gone with all its threads.
REAPED_S = 5.0


class SavesetExports(Exports):
    """The exports recorded below ``run_dir``, those of savesets among them."""

    def serve(self, repository, info, facts, address, tls, layers, readahead):
        """Serve the saveset ``info`` of a repository, and return the export's record.

        nbdkit itself holds the lease by which nothing is pruned that the saveset uses: as long as it lives, and no
        longer. ``facts``: of the record: name, run_id (of whom it is ended with) and what is only recorded.
        """
        _check_scratch(layers)
        nbdkit = server.find_nbdkit()
        order = nbdplugin.encode_order(repository, info, readahead, lease=True)
        facts = dict(facts, path=repository.location, readonly=True)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        try:
            script = self._write_engine(facts["name"])
            with server.order_pipe(order) as pipe:
                words = server.plugin_words(layers, script, processes.FIRST_INHERITED)
                return self.run(
                    facts, address, tls, nbdkit, words, [pipe], server.environment(layers.scratch), server.START_S
                )
        except BaseException:
            self.stop(facts["name"])
            raise

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


def _wait_until_reaped(pid):
    """A killed process holds its locks until the last of its threads is gone, which is when init has reaped it."""
    deadline = time.monotonic() + REAPED_S
    while pid and os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.02)


def _check_scratch(layers):
    if layers.cache and not os.path.isdir(layers.scratch):
        raise ExportError(f"{layers.scratch}, where the cache is to be, is no folder: make it, or name another scratch")
