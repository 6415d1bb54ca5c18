# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for a MEDITECH server that MEDITECH's listener controls: a file server of the lab with its M database.

Freezes the database and then the filesystems, and thaws them in reverse order, only on request. It has no dead man's
switch: what OpenISB does not unquiesce stays frozen, so that the tests notice.

Arguments: the port, GT.M's folder, the global directory, and the mount points.
"""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys
import threading

LOCK = threading.Lock()


class Databases:
    """The server's database and filesystems."""

    def __init__(self, dist: str, gbldir: str, mounts: list[str]) -> None:
        self.mupip = os.path.join(dist, "mupip")
        self.environment = {
            "gtm_dist": dist,
            "gtmgbldir": gbldir,
            "gtmroutines": f"{dist}/libgtmutil.so {dist}",
            "HOME": "/root",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
        }
        self.mounts = mounts
        self.quiesced = False

    def quiesce(self) -> bool:
        if self.quiesced:
            return True
        self.quiesced = self.run(self.mupip, "freeze", "-on", "*")
        for mount in self.mounts:
            self.quiesced = self.run("fsfreeze", "--freeze", mount) and self.quiesced
        return self.quiesced

    def unquiesce(self) -> bool:
        for mount in reversed(self.mounts):
            self.run("fsfreeze", "--unfreeze", mount)  # fails if it is not frozen, which is fine
        good = self.run(self.mupip, "freeze", "-off", "-override", "*")
        self.quiesced = self.quiesced and not good
        return good

    def status(self) -> bool:
        return self.quiesced

    def run(self, *command: str) -> bool:
        done = subprocess.run(command, env=self.environment, stdin=subprocess.DEVNULL, check=False)
        return done.returncode == 0


def main() -> None:
    databases = Databases(sys.argv[2], sys.argv[3], sys.argv[4:])
    commands = {"quiesce": databases.quiesce, "unquiesce": databases.unquiesce, "status": databases.status}

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            command = self.rfile.readline().strip().decode()
            if command in commands:
                with LOCK:
                    self.wfile.write(b"yes\n" if commands[command]() else b"no\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

    Server(("", int(sys.argv[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
