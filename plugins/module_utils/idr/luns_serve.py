# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The programs that make a block device of a source: nbdkit, and nbdfuse or the kernel's own NBD client on top."""

from __future__ import annotations

import glob
import os
import socket
import time
from typing import Any

from .. import processes
from . import luns_commands, luns_names, luns_source
from .luns_errors import LunError

# The overlay keeps blocks of this size: a page of the kernel's, so that no write has to read first, and a small read
# stays a small read.
BLOCK = 4096
POLL = 0.01
HANDSHAKE = "reading initial client flags"
PROGRAMS = ("nbdkit", "nbdfuse", "nbd-client")


def start_nbdkit(record: dict[str, Any], source: str, psk: str) -> dict[str, Any]:
    """Serve the source at the LUN's socket, with an overlay where the record asks for one; returns the process."""
    directory, opened = record["folder"], []
    words = ["nbdkit", "--foreground", "--unix", luns_names.socket(directory), "--newstyle"]
    if record["overlay"]:
        words += ["--filter=cow"]
    try:
        if luns_source.is_uri(source):
            export = luns_source.parse(source)
            connection = luns_source.connect(export, record["timeout"])
            opened.append(connection.detach())
            if export.tls and psk:
                opened.append(luns_source.key_file(export, psk))
            places = [luns_commands.FIRST_DESCRIPTOR + index for index, _opened in enumerate(opened)]
            words += luns_source.arguments_of_export(export, places[0], places[1] if places[1:] else None)
        else:
            luns_source.check_path(source)
            words += ["file", source]
        if record["overlay"]:
            words += [f"cow-block-size={BLOCK}"]
        log = _log(directory, "nbdkit")
        pid = luns_commands.spawn(words, log, tuple(opened), TMPDIR=record["scratch"])
    finally:
        for descriptor in opened:
            os.close(descriptor)
    process = {"pid": pid, "ticks": processes.start_ticks(pid)}
    _wait(process, lambda: _greets(luns_names.socket(directory)), record["timeout"], "nbdkit", log)
    return process


def start_nbdfuse(record: dict[str, Any]) -> dict[str, Any]:
    """Show what nbdkit serves as a file; returns the process."""
    directory = record["folder"]
    os.makedirs(luns_names.fuse(directory), mode=0o700, exist_ok=True)
    if not os.path.exists("/dev/fuse"):
        raise LunError("this host has no /dev/fuse: load the kernel module fuse, or use a kernel with nbd")
    log = _log(directory, "nbdfuse")
    words = ["nbdfuse", luns_names.disk(directory), "--unix", luns_names.socket(directory)]
    pid = luns_commands.spawn(words, log)
    process = {"pid": pid, "ticks": processes.start_ticks(pid)}
    _wait(process, lambda: os.path.exists(luns_names.disk(directory)), record["timeout"], "nbdfuse", log)
    return process


def last_words(directory: str) -> str:
    """The last thing that a LUN's nbdkit complained of; empty where it did not.

    Who only asks whether it greets goes without a word, which it complains of, too.
    """
    try:
        with open(_log(directory, "nbdkit"), encoding="utf-8", errors="replace") as stream:
            lines = [" ".join(line.split()) for line in stream if line.strip() and HANDSHAKE not in line]
    except OSError:
        return ""
    return lines[-1][-luns_commands.TOLD :] if lines else ""


def find_of(directory: str) -> list[dict[str, Any]]:
    """The processes of a LUN, by what only their command line can hold: a path in the LUN's folder."""
    found = []
    for entry in glob.glob("/proc/[0-9]*"):
        pid = int(os.path.basename(entry))
        words = processes.command_line(pid)
        if words and os.path.basename(words[0]) in PROGRAMS and any(_is_in(directory, word) for word in words[1:]):
            ticks = processes.start_ticks(pid)
            if ticks is not None:
                found.append({"pid": pid, "ticks": ticks, "program": os.path.basename(words[0])})
    return found


def end(found: list[dict[str, Any]]) -> list[str]:
    """End processes, nbdkit first: with it whatever waits for the source fails. Returns what does not end."""
    in_order = sorted(found, key=lambda process: PROGRAMS.index(process["program"]))
    return [
        "{program} (process {pid}) does not end".format(**process)
        for process in in_order
        if not processes.stop(process["pid"], process["ticks"], grace=2.0)
    ]


def _is_in(directory: str, word: str) -> bool:
    return word.startswith(directory + "/")


def _log(directory: str, name: str) -> str:
    return os.path.join(directory, name + ".log")


def _wait(process: dict[str, Any], ready: Any, timeout: float, name: str, log: str) -> None:
    """Wait until a program is ready; an error with what it said where it ended, or was not ready in time."""
    deadline = time.monotonic() + timeout
    while not ready():
        if not processes.is_running(process["pid"], process["ticks"]):
            raise LunError(f"{name} did not start: {_said(log) or 'it gave no reason'}")
        if time.monotonic() > deadline:
            raise LunError(f"{name} was not ready after {timeout:.3g} s: {_said(log) or 'it gave no reason'}")
        time.sleep(POLL)


def _said(log: str) -> str:
    with open(log, encoding="utf-8", errors="replace") as stream:
        return " ".join(stream.read().split())[-luns_commands.TOLD :]


def _greets(path: str) -> bool:
    """Whether nbdkit takes connections: it greets whoever connects."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
            return probe.recv(8) == b"NBDMAGIC"
        except OSError:
            return False
