# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Sparse volumes of several sizes with the same database, and the time from nothing to the answer of a query."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import time
import typing as t
from pathlib import Path

from .instant_lun import attached, mounted, run
from .instant_reads import forget
from .instant_serve import Serve

GIB = 1 << 30
_ROWS = 50_000
_FILE = "hospital.db"


def make_volume(path: Path, size: int, work: Path) -> None:
    """A sparse file with an ext4 of ``size`` bytes, and a database of some MiB in it."""
    path.touch()
    os.truncate(path, size)
    run("mkfs.ext4", "-q", "-F", path)
    with mounted(str(path), work / "made", "loop") as folder:
        database = sqlite3.connect(folder / _FILE)
        database.execute("create table result (id integer primary key, patient text, value text)")
        rows = ((number, f"patient {number * 7919 % _ROWS}", _value(number)) for number in range(_ROWS))
        database.executemany("insert into result values (?, ?, ?)", rows)
        database.execute("create index by_patient on result (patient)")
        database.commit()
        database.close()


def first_query(serve: Serve, repository: Path, work: Path) -> dict[str, float]:
    """Seconds since the saveset was asked for: until it is served, the LUN is there, mounted, and a query answered."""
    forget(repository)
    begun = time.monotonic()
    found: dict[str, float] = {}

    def reached(step: str) -> None:
        found[step] = time.monotonic() - begun

    with serve(repository, work) as address:
        reached("served")
        with attached(address, work) as device:
            reached("lun")
            with mounted(device, work / "mounted", "ro") as folder:
                reached("mounted")
                _query(folder)
                reached("answered")
    return found


def _query(folder: Path) -> None:
    database = sqlite3.connect(f"file:{folder / _FILE}?mode=ro", uri=True)
    number = 31_415
    rows: list[t.Any] = database.execute(
        "select id, value from result where patient = ?", (f"patient {number * 7919 % _ROWS}",)
    ).fetchall()
    database.close()
    if (number, _value(number)) not in rows:
        raise RuntimeError(f"the database on the LUN answers {rows}")


def _value(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()
