# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's stand-in for MEDITECH's listener of one ring, which makes the ring's servers quiesce and unquiesce.

Arguments: the ring's name. ``rings.json`` beside this file describes the ring. Faults are read at each request from
``/var/lib/mbf/fault-<ring>.json``: by command, an object of ``code`` (the exit code to return), ``effect`` (``all``,
``none``, ``first``: which servers really do it), ``hang`` (seconds from the effect to the answer), ``late`` (seconds
before the effect), ``text`` (``partial``, ``garbage``, ``missing``: how to spoil the answer), ``signal`` (that ends
mbf), ``times`` (how often to misbehave; default always).
"""

from __future__ import annotations

import json
import os
import socket
import socketserver
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

STATE = Path("/var/lib/mbf")
PASSWORD = Path("/root/mbf-password")
SUCCESS, PARTIAL, AUTHENTICATION, UNQUIESCE_FIRST = 0, 2, 4, 9
AGENT_TIMEOUT = 20


class Ring:
    """The servers of a ring, each with its agent's address and its drives (letter to serial)."""

    def __init__(self, name: str) -> None:
        self.name = name
        known = json.loads(Path(__file__).with_name("rings.json").read_text())[name]
        self.servers: dict[str, Any] = known["servers"]
        self.port: int = known["port"]
        self.user: str = known["user"]
        self.counts: dict[tuple[int, str], int] = {}
        self.lock = threading.Lock()

    def fault(self, command: str) -> dict[str, Any]:
        """Return the fault for this request, if any."""
        path = STATE / f"fault-{self.name}.json"
        if not path.exists():
            return {}
        found: dict[str, Any] = json.loads(path.read_text()).get(command, {})
        key = (path.stat().st_mtime_ns, command)
        with self.lock:
            self.counts[key] = self.counts.get(key, 0) + 1
            return found if self.counts[key] <= found.get("times", self.counts[key]) else {}

    def respond(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return what mbf is to print, and its exit code."""
        if (request["U"], request["P"]) != (self.user, PASSWORD.read_text().strip()):
            return {"code": AUTHENTICATION, "text": "authentication failed\n"}
        command = request["command"]
        fault = self.fault(command)
        time.sleep(fault.get("late", 0))
        statuses, code = ({}, SUCCESS) if command == "census" else self.act(command, request["M"], fault)
        time.sleep(fault.get("hang", 0))
        text = (
            self.census() if command == "census" else "".join(f"{name}={said},\r\n" for name, said in statuses.items())
        )
        return {
            "code": fault.get("code", code),
            "text": spoilt(text, fault.get("text", "")),
            "signal": fault.get("signal"),
        }

    def census(self) -> str:
        """Return one line per drive."""
        return "".join(
            f"{name}:{name} {letter}={serial.upper()}|,\r\n"
            for name, server in self.servers.items()
            for letter, serial in server["drives"].items()
        )

    def act(self, command: str, mode: str, fault: dict[str, Any]) -> tuple[dict[str, str], int]:
        """Make the servers do it in parallel; return the status of each, and the exit code."""
        effect = fault.get("effect", "all")
        names = {"all": list(self.servers), "none": [], "first": list(self.servers)[:1]}[effect]
        if command == "quiesce" and mode.lower() != "force" and self.any_quiesced():
            return dict.fromkeys(self.servers, "QUIESCED ALREADY"), UNQUIESCE_FIRST
        with ThreadPoolExecutor(max_workers=len(self.servers)) as pool:
            done = dict(zip(names, pool.map(lambda name: ask(self.servers[name]["agent"], command), names)))
        statuses = {name: "SUCCESS" if done.get(name, True) else "FAILED" for name in self.servers}
        return statuses, SUCCESS if all(done.values()) else PARTIAL

    def any_quiesced(self) -> bool:
        return any(ask(server["agent"], "status") for server in self.servers.values())


def spoilt(text: str, how: str) -> str:
    """Return the answer, spoilt as requested."""
    lines = [line + "\n" for line in text.split("\n")[:-1]]
    if how == "partial":
        return "".join(lines[:-1]) + lines[-1][:-6]
    if how == "missing":
        return "".join(lines[:-1])
    return "\x00\x01 |;~ garbage =\r\n" if how == "garbage" else text


def ask(agent: str, command: str) -> bool:
    """Return whether a server's agent did it; for ``status``, whether the server is quiesced."""
    host, _colon, port = agent.partition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=AGENT_TIMEOUT) as connection:
            connection.sendall(command.encode() + b"\n")
            return connection.makefile("rb").readline().strip() == b"yes"
    except OSError:
        return False


def main() -> None:
    ring = Ring(sys.argv[1])
    os.makedirs(STATE, exist_ok=True)

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            said = ring.respond(json.loads(self.rfile.readline()))
            self.wfile.write(json.dumps(said).encode() + b"\n")

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = True
        daemon_threads = True

        def handle_error(self, request: Any, client_address: Any) -> None:
            """Ignore errors: mbf may be gone before it is answered."""

    Server(("", ring.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
