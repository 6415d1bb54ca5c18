# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on record of a hold, beside its socket, for whoever comes after its holder.

``<run_dir>/hold-<run_id>.json`` is written before the first freeze and before each step of it, and says who holds, with
which drivers, what may be frozen (``marks``), and the last status. ``run_dir`` is volatile, as a freeze is.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from typing import Any, Iterator

from .errors import HolderError

RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_RECORD = re.compile(rf"hold-({RUN_ID.pattern})\.json")


def check_run_id(run_id: str) -> str:
    """Return ``run_id``, or raise HolderError where it cannot name a hold's files."""
    if not RUN_ID.fullmatch(run_id):
        raise HolderError(f"'{run_id}' cannot be a run id: use letters, digits, '.', '_' and '-', at most 100")
    return run_id


def socket_path(run_dir: str, run_id: str) -> str:
    """Where the holder of a run listens."""
    return os.path.join(run_dir, f"holder-{run_id}.sock")


def record_path(run_dir: str, run_id: str) -> str:
    """Where the record of a run's hold is."""
    return os.path.join(run_dir, f"hold-{run_id}.json")


def prepare_folder(run_dir: str) -> None:
    """Make ``run_dir``; what is in it is for its owner alone. Raises HolderError where others could change it."""
    with contextlib.suppress(FileExistsError):
        os.makedirs(run_dir)
        os.chmod(run_dir, 0o755)
    check_folder(run_dir)


def check_folder(run_dir: str) -> None:
    """Raise HolderError where others than root and this user decide what is in ``run_dir``, and so what is thawed."""
    found = os.lstat(run_dir)
    if not stat.S_ISDIR(found.st_mode):
        raise HolderError(f"{run_dir} is no folder, or only a link to one: name the folder itself as 'run_dir'")
    if found.st_uid not in (0, os.geteuid()):
        raise HolderError(f"{run_dir} belongs to user {found.st_uid}: use a folder of root's as 'run_dir'")
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid not in (0, os.getegid())):
        raise HolderError(f"others may write to {run_dir}: 'chmod go-w {run_dir}', and look at what is in it")


@contextlib.contextmanager
def locked(run_dir: str) -> Iterator[None]:
    """Only one at a time starts or ends holders."""
    prepare_folder(run_dir)
    descriptor = os.open(os.path.join(run_dir, "quiesce.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write(run_dir: str, record: dict[str, Any]) -> None:
    """Put a record in place, whole or not at all."""
    path = record_path(run_dir, record["run_id"])
    temporary = path + ".new"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(record, stream, sort_keys=True)
    os.replace(temporary, path)


def read(run_dir: str, run_id: str) -> dict[str, Any] | None:
    """The record of a run's hold; None where there is none. Raises HolderError where it cannot be read."""
    path = record_path(run_dir, run_id)
    try:
        check_folder(run_dir)
        with open(path, encoding="utf-8") as stream:
            record: dict[str, Any] = json.load(stream)
        if record["run_id"] != run_id:
            raise ValueError(f"it is of run {record['run_id']}")
        return record
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise HolderError(f"{path} cannot be read: {error}: look at it, thaw by hand and remove it") from error


def read_all(run_dir: str) -> list[dict[str, Any]]:
    """All records, by run id. Raises HolderError."""
    try:
        names = sorted(os.listdir(run_dir))
    except (FileNotFoundError, NotADirectoryError):
        return []
    run_ids = [match.group(1) for match in map(_RECORD.fullmatch, names) if match]
    return [record for record in (read(run_dir, run_id) for run_id in run_ids) if record is not None]


def remove(run_dir: str, run_id: str) -> None:
    """Forget a run's hold."""
    for path in (socket_path(run_dir, run_id), record_path(run_dir, run_id)):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def may_be_frozen(record: dict[str, Any]) -> bool:
    """Whether, as far as the record tells, something may still be frozen."""
    return any(driver["marks"] for driver in record["drivers"])
