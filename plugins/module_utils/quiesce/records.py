# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of a hold, next to its socket, for any process that takes over from its holder.

``<run_dir>/hold-<run_id>.json`` is written before the first freeze and before each step of it. It names the holder, the
drivers, what may be frozen (``marks``) and the last status. ``run_dir`` is volatile, as a freeze is.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from typing import Any, Iterator

from ..host import records
from .errors import HolderError

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RECORD = re.compile(rf"hold-({RUN_ID.pattern})\.json")


def check_run_id(run_id: str) -> str:
    """Return ``run_id``, or raise HolderError if it cannot be part of a file name."""
    if not RUN_ID.fullmatch(run_id):
        raise HolderError(f"'{run_id}' cannot be a run id: use letters, digits, '.', '_' and '-', at most 100")
    return run_id


def socket_path(run_dir: str, run_id: str) -> str:
    """The path of the socket of a run's holder."""
    return os.path.join(run_dir, f"holder-{run_id}.sock")


def record_path(run_dir: str, run_id: str) -> str:
    """The path of the record of a run's hold."""
    return os.path.join(run_dir, f"hold-{run_id}.json")


def prepare_folder(run_dir: str) -> None:
    """Create ``run_dir``. Raises HolderError if other users could change its content."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(run_dir)
        os.chmod(run_dir, 0o755)
    check_folder(run_dir)


def check_folder(run_dir: str) -> None:
    """Raise HolderError if users other than root and this one can change ``run_dir``, and thus what is thawed."""
    found = os.lstat(run_dir)
    if not stat.S_ISDIR(found.st_mode):
        raise HolderError(f"{run_dir} is not a directory, or is a link to one: set 'run_dir' to the directory itself")
    if found.st_uid not in (0, os.geteuid()):
        raise HolderError(f"{run_dir} belongs to user {found.st_uid}: set 'run_dir' to a directory owned by root")
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())):
        raise HolderError(f"other users may write to {run_dir}: 'chmod go-w {run_dir}', and review what is in it")


@contextlib.contextmanager
def locked(run_dir: str) -> Iterator[None]:
    """Serialize the start and end of holders."""
    prepare_folder(run_dir)
    descriptor = os.open(os.path.join(run_dir, "quiesce.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(run_dir: str, record: dict[str, Any]) -> None:
    """Write a record atomically."""
    records.write(record_path(run_dir, record["run_id"]), record)


def read(run_dir: str, run_id: str) -> dict[str, Any] | None:
    """The record of a run's hold; None if there is none. Raises HolderError if it cannot be read."""
    path = record_path(run_dir, run_id)
    try:
        check_folder(run_dir)
        record = records.read(path)
        if record is not None and record["run_id"] != run_id:
            raise ValueError(f"it belongs to run {record['run_id']}")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HolderError(f"{path} cannot be read: {error}: inspect it, thaw by hand and remove it") from error


def read_all(run_dir: str) -> list[dict[str, Any]]:
    """All records, ordered by run id. Raises HolderError."""
    try:
        names = sorted(os.listdir(run_dir))
    except (FileNotFoundError, NotADirectoryError):
        return []
    run_ids = [match.group(1) for match in map(_RECORD.fullmatch, names) if match]
    return [record for record in (read(run_dir, run_id) for run_id in run_ids) if record is not None]


def remove(run_dir: str, run_id: str) -> None:
    """Remove the socket and the record of a run's hold."""
    for path in (socket_path(run_dir, run_id), record_path(run_dir, run_id)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def may_be_frozen(record: dict[str, Any]) -> bool:
    """Whether something may still be frozen, according to the record."""
    return any(driver["marks"] for driver in record["drivers"])
