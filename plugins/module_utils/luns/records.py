# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of LUNs below ``run_dir``: each says what is about to be created, before it is created.

So the record of a killed module shows what may exist; names carry the rest (luns_names).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from typing import Any, Iterator

from ..host import records
from .errors import LunError

FOLDER = "luns"
"""Their directory below ``run_dir``."""

SHOWN = ("name", "drill", "source", "overlay", "writable", "method", "device", "size", "table", "parts", "expires")


class Records:
    """The records in ``folder``."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def all(self) -> list[dict[str, Any]]:
        """All records, as last written."""
        found = [self.get(name) for name in self.names()]
        return [record for record in found if record is not None]

    def names(self) -> list[str]:
        """Names of the recorded LUNs."""
        if not os.path.isdir(self.folder):
            return []
        return sorted(name[:-5] for name in os.listdir(self.folder) if name.endswith(".json"))

    def get(self, name: str) -> dict[str, Any] | None:
        """One record, or None."""
        try:
            return records.read(self._file(name, "json"))
        except ValueError as error:
            raise LunError(
                f"the record {self._file(name, 'json')} is damaged ({error}): remove it, and end the LUN by its name"
            ) from error

    def write(self, record: dict[str, Any], **changes: Any) -> None:
        """Change a record and write it atomically."""
        record.update(changes)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        records.write(self._file(record["name"], "json"), record, lasting=True)

    def forget(self, name: str) -> None:
        """Remove a record. Idempotent."""
        for ending in ("json.new", "json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file(name, ending))

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Lock a LUN against other modules. The lock ends with its process, so a killed one leaves none."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        path = self._file(name, "lock")
        descriptor = _lock(path)
        try:
            yield
        finally:
            # Unlinked while held: a waiting process notices that and locks the new file.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(descriptor)

    def _file(self, name: str, ending: str) -> str:
        return os.path.join(self.folder, f"{name}.{ending}")


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """The public part of a record."""
    return {key: record[key] for key in SHOWN if key in record}


def _lock(path: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)
