# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one check in a process of its own, bounded in time, and ends whatever it has started.

As root that process is the first of those that see nothing but themselves, and all of them end with it. Its parent, in
between, only waits for it.

The process tells what it has found as it goes on, a line of JSON each time: where it has to be killed, because it
waits for a disk that does not answer, what it found until then is on record.
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

from ..plain import plain, plain_all
from ..quiesce.errors import QuiesceError
from ..quiesce.mounts import current
from ..quiesce.processes import identity
from . import ending
from .base import Check
from .bench import CLEAN_UP, Bench
from .errors import CheckFailed
from .isolation import HARMLESS, MOUNTS, NOBODYS, PROCESSES, User, bind, enter, mount, shut_off
from .record import LINES, Record

MARK = "OPENISB_CHECK"
GRACE = 1.0
"""Seconds between the polite and the hard end of what a check leaves running."""
PATIENCE = 10.0
"""Seconds that killed processes may take to be gone."""
LATE = CLEAN_UP + GRACE + PATIENCE + 5
"""Seconds after its time that the process of a check may take to end by itself."""
READ_SIZE = 65536
RIGHTS = "rights"
SOCKETS = "/run"
TEMPORARY = "/var/tmp"
UNREADABLE = "the copy is damaged, or its disk does not answer"


def run(check: Check, scratch: str) -> dict[str, Any]:
    """The result of a check. ``scratch`` is a folder for what it writes. Raises OSError where that cannot be used."""
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
    """``left``: what is still there."""
    result = {"kind": check.name, "what": check.what, "ok": False, "detail": "", **told, "seconds": seconds}
    if "ok" not in told:
        hung = seconds >= check.timeout
        result["detail"] = (
            f"it did not end within {check.timeout:g} s, and was killed: a disk or a mount may not answer"
            if hung
            else "the process of the check was ended by somebody else"
        )
    if left:
        result.update(ok=False, detail="; ".join([result["detail"], *left]))
    return result


def _cannot_end(processes: list[int]) -> list[str]:
    return [f"process {pid} cannot be ended, as it waits for a disk" for pid in processes]


def _fork(check: Check, work: str, mark: str) -> tuple[int, int]:
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        _in_child(check, work, mark, writer)
    os.close(writer)
    return pid, reader


def _listen(reader: int, seconds: float) -> dict[str, Any]:
    """What the process has told last, once it has ended, or is given up."""
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
    """End the process with all that it has started; returns those that cannot be ended."""
    worker = identity(pid)
    left = ending.end_below(pid, mark, 0, PATIENCE)
    if not ending.end(worker, PATIENCE):
        left.append(pid)
    left = sorted({*left, *ending.end_below(pid, mark, 0, PATIENCE if not left else 0)})
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    return left


def _remove(work: str) -> list[str]:
    """Remove the folder of a check; what hinders. Mounts in it there only are where these could not be shut off."""
    mounted = [mount.point for mount in current() if mount.point.startswith(work + "/")]
    if mounted:
        return [f"{point} is still mounted: unmount it, and remove {work}" for point in mounted]
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
        os._exit(0)  # nothing may return into the module's own code


def _shut_off(check: Check, teller: _Teller) -> list[str] | None:
    """What this process still shares with the host; None where that went wrong, and has been told."""
    teller.tell()
    try:
        return shut_off(check.network)
    except CheckFailed as error:
        teller.tell(ok=False, detail=_line(str(error)))
        return None


def _is_first(writer: int) -> bool:
    """Fork; true in the first of the processes that see each other alone, and in its parent false once that ended."""
    pid = os.fork()
    if pid:
        os.close(writer)
        os.waitpid(pid, 0)
    return not pid


def _check(check: Check, work: str, mark: str, teller: _Teller, shared: list[str]) -> None:
    ok, detail = _attempt(check, work, mark, teller, shared)
    left = _cannot_end(ending.end_below(os.getpid(), mark, GRACE, PATIENCE))
    if PROCESSES not in shared:  # whoever sees all processes names those that stay, by the ids that they have there
        left = []
    teller.tell(ok=ok and not left, detail="; ".join([detail, *left]))


class _Teller:
    """Tells the module what there is to know of the check until now."""

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
    """Whether the check passed, and what it found, in one line."""
    bench = Bench(teller.record, work, check.timeout, mark, teller.tell)
    try:
        if PROCESSES not in shared:
            enter()
        bench.own_mounts = MOUNTS not in shared
        bench.disposable = check.surroundings.disposable
        if check.confined:
            _confine(check, bench, shared)
        return True, _line(check.run(bench))
    except (CheckFailed, QuiesceError) as error:
        return False, _line(str(error))
    except OSError as error:
        where = f"{check.places.there(str(error.filename))} cannot be read" if error.filename else "it broke off"
        return False, _line(f"{where} ({error.strerror or error}): {UNREADABLE}")
    except Exception as error:  # one check that breaks off must not keep the others from their turn
        teller.record.say(traceback.format_exc())
        return False, _line(f"the check broke off: {error!r}")


def _confine(check: Check, bench: Bench, shared: list[str]) -> None:
    """Have the check's programs run without rights. Raises CheckFailed where this host cannot do all of that."""
    if os.geteuid() == 0:
        bench.user = _user(check.account())
    else:
        shared = [*shared, RIGHTS]
    if shared and not check.surroundings.unconfined:
        raise CheckFailed(
            f"programs that read the copy cannot be shut off here from this host's {', '.join(shared)}: let root check "
            "on a host that allows namespaces, or accept what a hostile copy could do (idr_checks_unconfined)"
        )
    bench.confined = True
    if bench.own_mounts:
        bind(bench.work, bench.work)
        _show_work(check, bench)


def _show_work(check: Check, bench: Bench) -> None:
    """Show the check's folder where any user gets to, whoever may pass through the folders above the other place.

    A check without a network has it in place of the sockets of the host's services, so that its programs find none.
    Nothing is done where the drill itself is mounted there.
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
        raise CheckFailed(f"{name} has all rights on this host, so nothing of a copy is read as {name}: correct 'user'")
    return User(entry.pw_uid, entry.pw_gid)


def _line(text: str) -> str:
    return plain(" ".join(text.split()))
