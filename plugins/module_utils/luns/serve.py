# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that turn a source into a block device: nbdkit, plus nbdfuse or the kernel's own NBD client."""

from __future__ import annotations

import glob
import os
import socket
from typing import Any

from ..host import nbdkit, processes
from ..host.commands import TOLD
from . import commands, names
from . import source as luns_source
from .errors import LunError

# The overlay's block size: a kernel page, so that no write needs a read first, and small reads stay small.
BLOCK = 4096
HANDSHAKE = "reading initial client flags"
PROGRAMS = ("nbdkit", "nbdfuse", "nbd-client")


def start_nbdkit(record: dict[str, Any], source: str, psk: str) -> dict[str, Any]:
    """Serve the source at the LUN's socket, with an overlay if the record asks for one. Returns the process."""
    directory, opened = record["folder"], []
    words = ["nbdkit", "--foreground", "--unix", names.socket(directory), "--newstyle"]
    if record["overlay"]:
        words += ["--filter=cow"]
    try:
        if luns_source.is_uri(source):
            export = luns_source.parse(source)
            connection = luns_source.connect(export, record["timeout"])
            opened.append(connection.detach())
            if export.tls and psk:
                opened.append(luns_source.key_file(export, psk))
            places = [commands.FIRST_DESCRIPTOR + index for index, _opened in enumerate(opened)]
            words += luns_source.arguments_of_export(export, places[0], places[1] if places[1:] else None)
        else:
            luns_source.check_path(source)
            words += ["file", source]
        if record["overlay"]:
            words += [f"cow-block-size={BLOCK}"]
        log = _log(directory, "nbdkit")
        pid = commands.spawn(words, log, tuple(opened), TMPDIR=record["scratch"])
    finally:
        for descriptor in opened:
            os.close(descriptor)
    process = processes.identity(pid)
    _wait(process, lambda: nbdkit.greets(socket.AF_UNIX, names.socket(directory)), record["timeout"], "nbdkit", log)
    return process


def start_nbdfuse(record: dict[str, Any]) -> dict[str, Any]:
    """Show what nbdkit serves as a file. Returns the process."""
    directory = record["folder"]
    os.makedirs(names.fuse(directory), mode=0o700, exist_ok=True)
    if not os.path.exists("/dev/fuse"):
        raise LunError("this host has no /dev/fuse: load the kernel module fuse, or use a kernel with nbd")
    log = _log(directory, "nbdfuse")
    words = ["nbdfuse", names.disk(directory), "--unix", names.socket(directory)]
    pid = commands.spawn(words, log)
    process = processes.identity(pid)
    _wait(process, lambda: os.path.exists(names.disk(directory)), record["timeout"], "nbdfuse", log)
    return process


def last_words(directory: str) -> str:
    """The last error that a LUN's nbdkit logged; empty if there is none.

    Readiness probes disconnect without a handshake; nbdkit logs that too, so those lines are ignored.
    """
    try:
        with open(_log(directory, "nbdkit"), encoding="utf-8", errors="replace") as stream:
            lines = [" ".join(line.split()) for line in stream if line.strip() and HANDSHAKE not in line]
    except OSError:
        return ""
    return lines[-1][-TOLD:] if lines else ""


def find_of(directory: str) -> list[dict[str, Any]]:
    """The processes of a LUN, identified by a path in the LUN's directory on their command line."""
    found = []
    for entry in glob.glob("/proc/[0-9]*"):
        pid = int(os.path.basename(entry))
        words = processes.command_line(pid)
        if words and os.path.basename(words[0]) in PROGRAMS and any(_is_in(directory, word) for word in words[1:]):
            process = processes.identity(pid)
            if process["ticks"] is not None:
                found.append({**process, "program": os.path.basename(words[0])})
    return found


def end(found: list[dict[str, Any]]) -> list[str]:
    """End processes, nbdkit first: then everything that waits for the source fails. Returns what does not end."""
    in_order = sorted(found, key=lambda process: PROGRAMS.index(process["program"]))
    return [
        "{program} (process {pid}) does not end".format(**process)
        for process in in_order
        if not processes.stop(process, grace=2.0)
    ]


def _is_in(directory: str, word: str) -> bool:
    return word.startswith(directory + "/")


def _log(directory: str, name: str) -> str:
    return os.path.join(directory, name + ".log")


def _wait(process: dict[str, Any], ready: Any, timeout: float, name: str, log: str) -> None:
    """Wait until a program is ready. Raises LunError with its output if it ends or is not ready in time."""
    if not nbdkit.is_ready(process, ready, timeout):
        why = f"was not ready after {timeout:.3g} s" if processes.is_running(process) else "did not start"
        raise LunError(f"{name} {why}: {_said(log) or 'it gave no reason'}")


def _said(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as stream:
        return " ".join(stream.read().split())[-TOLD:]
