# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one check in its own process, with a time limit, and ends everything that it started.

For root that process is the first in its own PID namespace, and all others in it end with it. Its parent only waits.

The process reports its findings as it goes, one line of JSON each time: if it must be killed because it waits for a
disk that does not respond, its findings so far are on record.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import secrets
import select
import shutil
import tempfile
import time
import traceback
from typing import Any

from ..host.errors import HostError
from ..host.mounts import current
from ..host.plain import plain, plain_all
from ..host.processes import identity
from . import ending
from .base import Check
from .bench import CLEAN_UP, Bench
from .errors import CheckFailed
from .isolation import HARMLESS, MOUNTS, NOBODYS, PROCESSES, User, bind, enter, mount, shut_off
from .record import LINES, Record

MARK = "OPENISB_CHECK"
GRACE = 1.0
"""Seconds between SIGTERM and SIGKILL for what a check leaves running."""
PATIENCE = 10.0
"""Seconds that killed processes may take to end."""
LATE = CLEAN_UP + GRACE + PATIENCE + 5
"""Seconds after its time limit that the process of a check may take to end on its own."""
READ_SIZE = 65536
RIGHTS = "rights"
SOCKETS = "/run"
TEMPORARY = "/var/tmp"
UNREADABLE = "the copy is damaged, or its disk does not answer"


def run(check: Check, scratch: str) -> dict[str, Any]:
    """The result of a check. ``scratch``: a directory for what it writes. Raises OSError if that cannot be used."""
    os.makedirs(scratch, mode=0o711, exist_ok=True)
    work = tempfile.mkdtemp(prefix="openisb-check-", dir=scratch)
    os.chmod(work, 0o711)  # a check may run programs as another user
    mark = f"{MARK}={secrets.token_hex(8)}"
    begun = time.monotonic()
    try:
        pid, reader = _fork(check, work, mark)
        told = _listen(reader, check.timeout + LATE)
        left = _cannot_end(_end(pid, mark))
    finally:
        still = _remove(work)
    seconds = round(time.monotonic() - begun, 3)
    return _result(check, told, seconds, left + still)


def _result(check: Check, told: dict[str, Any], seconds: float, left: list[str]) -> dict[str, Any]:
    """``left``: the leftovers."""
    result = {"kind": check.name, "what": check.what, "ok": False, "detail": "", **told, "seconds": seconds}
    if "ok" not in told:
        hung = seconds >= check.timeout
        result["detail"] = (
            f"it did not end within {check.timeout:g} s and was killed: a disk or a mount may not answer"
            if hung
            else "the process of the check was ended by somebody else"
        )
    if left:
        result.update(ok=False, detail="; ".join([result["detail"], *left]))
    return result


def _cannot_end(processes: list[int]) -> list[str]:
    return [f"process {pid} cannot be ended because it waits for a disk" for pid in processes]


def _fork(check: Check, work: str, mark: str) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _in_child(check, work, mark, writer)
    os.close(writer)
    return pid, reader


def _listen(reader: int, seconds: float) -> dict[str, Any]:
    """The last report of the process, once it has ended or is given up."""
    give_up, heard, told = time.monotonic() + seconds, b"", b"{}"
    try:
        while select.select([reader], [], [], max(give_up - time.monotonic(), 0))[0]:
            piece = os.read(reader, READ_SIZE)
            if not piece:
                break
            *lines, heard = (heard + piece).split(b"\n")
            told = lines[-1] if lines else told
    finally:
        os.close(reader)
    found: dict[str, Any] = json.loads(told)
    return found


def _end(pid: int, mark: str) -> list[int]:
    """End the process and all that it started. Returns the processes that cannot be ended."""
    worker = identity(pid)
    left = ending.end_below(pid, mark, 0, PATIENCE)
    if not ending.end(worker, PATIENCE):
        left.append(pid)
    left = sorted({*left, *ending.end_below(pid, mark, 0, PATIENCE if not left else 0)})
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return left


def _remove(work: str) -> list[str]:
    """Remove the directory of a check; returns obstacles. Mounts can be left only by a check without its own mounts."""
    mounted = [mount.point for mount in current() if mount.point.startswith(work + "/")]
    if mounted:
        return [f"{point} is still mounted: unmount it and remove {work}" for point in mounted]
    shutil.rmtree(work, ignore_errors=True)
    return [f"{work} cannot be removed"] if os.path.lexists(work) else []


# In the process of the check


def _in_child(check: Check, work: str, mark: str, writer: int) -> None:
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for standard in (0, 1, 2):
            os.dup2(null, standard)
        teller = _Teller(check, writer)
        shared = _shut_off(check, teller)
        if shared is not None and (PROCESSES in shared or _is_first(writer)):
            _check(check, work, mark, teller, shared)
    finally:
        os._exit(0)  # never return into the module's code


def _shut_off(check: Check, teller: _Teller) -> list[str] | None:
    """What this process still shares with the host; None after an error, which was reported."""
    teller.tell()
    try:
        return shut_off(check.network)
    except CheckFailed as error:
        teller.tell(ok=False, detail=_line(str(error)))
        return None


def _is_first(writer: int) -> bool:
    """Fork; returns True in the first process of the PID namespace, and False in its parent once that has ended."""
    pid = os.fork()
    if pid:
        os.close(writer)
        os.waitpid(pid, 0)
    return not pid


def _check(check: Check, work: str, mark: str, teller: _Teller, shared: list[str]) -> None:
    ok, detail = _attempt(check, work, mark, teller, shared)
    left = _cannot_end(ending.end_below(os.getpid(), mark, GRACE, PATIENCE))
    if PROCESSES not in shared:  # the parent outside the namespace reports leftovers, with the host's ids
        left = []
    teller.tell(ok=ok and not left, detail="; ".join([detail, *left]))


class _Teller:
    """Reports the state of the check to the module."""

    def __init__(self, check: Check, writer: int) -> None:
        self.record = Record()
        self._check = check
        self._writer = writer

    def tell(self, **more: Any) -> None:
        document = plain_all({"what": self._check.what, **self.record.as_dict(), **more}, LINES)
        self._write(json.dumps(document).encode() + b"\n")

    def _write(self, text: bytes) -> None:
        while text:
            text = text[os.write(self._writer, text) :]


def _attempt(check: Check, work: str, mark: str, teller: _Teller, shared: list[str]) -> tuple[bool, str]:
    """Whether the check passed, and its finding in one line."""
    bench = Bench(teller.record, work, check.timeout, mark, teller.tell)
    try:
        if PROCESSES not in shared:
            enter()
        bench.own_mounts = MOUNTS not in shared
        bench.disposable = check.surroundings.disposable
        if check.confined:
            _confine(check, bench, shared)
        return True, _line(check.run(bench))
    except (CheckFailed, HostError) as error:
        return False, _line(str(error))
    except OSError as error:
        where = f"{check.places.there(str(error.filename))} cannot be read" if error.filename else "it was aborted"
        return False, _line(f"{where} ({error.strerror or error}): {UNREADABLE}")
    except Exception as error:  # a bug in one check must not prevent the others
        teller.record.say(traceback.format_exc())
        return False, _line(f"the check was aborted: {error!r}")


def _confine(check: Check, bench: Bench, shared: list[str]) -> None:
    """Have the check's programs run without privileges. Raises CheckFailed if this host cannot fully isolate them."""
    if os.geteuid() == 0:
        bench.user = _user(check.account())
    else:
        shared = [*shared, RIGHTS]
    if shared and not check.surroundings.unconfined:
        raise CheckFailed(
            f"programs that read the copy cannot be isolated from this host's {', '.join(shared)}: run the check as "
            "root on a host that allows namespaces, or accept what a hostile copy could do (idr_checks_unconfined)"
        )
    bench.confined = True
    if bench.own_mounts:
        bind(bench.work, bench.work)
        _show_work(check, bench)


def _show_work(check: Check, bench: Bench) -> None:
    """Mount the check's directory where any user can reach it, whatever the permissions above its original path.

    Without a network the mount hides the sockets of the host's services, so that the check's programs find none.
    Nothing is done if the drill itself uses that path.
    """
    place, mode = (TEMPORARY, "1777") if check.network else (SOCKETS, "0755")
    used = [bench.work, *check.places.roots, *check.surroundings.devices.values()]
    if not any(os.path.realpath(path).startswith(f"{place}/") for path in used):
        mount("tmpfs", place, HARMLESS, "tmpfs", f"mode={mode}")
        work = os.path.join(place, "check")
        os.mkdir(work, 0o711)
        bind(bench.work, work)
        bench.work = work


def _user(name: str) -> User:
    if not name:
        return NOBODYS
    try:
        entry = pwd.getpwnam(name)
    except KeyError as error:
        raise CheckFailed(f"there is no user {name} on this host: correct 'user'") from error
    if entry.pw_uid == 0:
        raise CheckFailed(f"{name} has all privileges on this host, so no copy is read as {name}: correct 'user'")
    return User(entry.pw_uid, entry.pw_gid)


def _line(text: str) -> str:
    return plain(" ".join(text.split()))
