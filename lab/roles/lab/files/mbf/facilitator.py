# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in for MEDITECH's MBF in the lab: the documented command line and output, with a protocol of the lab's own.

``mbf C=Census|Quiesce|Unquiesce I=host[:port] [I=...] U=user P=password [T=seconds] [M=force|quiet] [F=file]``
"""

from __future__ import annotations

import json
import os
import socket
import sys

BANNER = "MEDITECH Backup Facilitator, stand-in of the lab"
PORT = 2987
COMMANDS = ("census", "quiesce", "unquiesce")
SYNTAX, CONNECTION, INTERMEDIARY, TIMEOUT = 3, 5, 6, 7


def main(words: list[str]) -> int:
    print(BANNER)
    given: dict[str, list[str]] = {}
    for word in words:
        key, _equals, value = word.partition("=")
        given.setdefault(key.upper(), []).append(value)
    command = given.get("C", [""])[0].lower()
    if command not in COMMANDS or set(given) - set("CUPTIMF") or "I" not in given:
        print(
            "usage: mbf C=Census|Quiesce|Unquiesce I=host[:port] U=user P=password [T=seconds] [M=force|quiet] [F=file]"
        )
        return SYNTAX
    request = {"command": command, **{key: given.get(key, [""])[0] for key in "UPM"}}
    return answer(request, given["I"], float(given.get("T", ["90"])[0]))


def answer(request: dict[str, str], intermediaries: list[str], seconds: float) -> int:
    """Ask the first of MEDITECH's listeners that can be reached; print its text and return its exit code."""
    code = INTERMEDIARY
    for intermediary in intermediaries:
        host, _colon, port = intermediary.partition(":")
        try:
            with socket.create_connection((host, int(port or PORT)), timeout=5) as connection:
                connection.settimeout(seconds)
                connection.sendall(json.dumps(request).encode() + b"\n")
                return show(json.loads(connection.makefile("rb").readline()))
        except socket.gaierror:
            code = INTERMEDIARY
        except TimeoutError:
            return TIMEOUT
        except OSError:
            code = CONNECTION
    return code


def show(said: dict) -> int:
    sys.stdout.write(said["text"])
    sys.stdout.flush()
    if said.get("signal"):
        os.kill(os.getpid(), said["signal"])
    return said["code"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
