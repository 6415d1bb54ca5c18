# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The records of LUNs below ``run_dir``: each says what is about to be made, before it is made.

So whoever finds the record of a module that was killed knows what there may be, and names carry the rest (luns_names).
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from typing import Any, Iterator

from .luns_errors import LunError

FOLDER = "luns"
"""Where they are below ``run_dir``."""

SHOWN = ("name", "drill", "source", "overlay", "writable", "method", "device", "size", "table", "parts", "expires")


class Records:
    """The records in ``folder``."""

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def all(self) -> list[dict[str, Any]]:
        """All records, as they were last written."""
        found = [self.get(name) for name in self.names()]
        return [record for record in found if record is not None]

    def names(self) -> list[str]:
        """Names of the LUNs that are recorded."""
        if not os.path.isdir(self.folder):
            return []
        return sorted(name[:-5] for name in os.listdir(self.folder) if name.endswith(".json"))

    def get(self, name: str) -> dict[str, Any] | None:
        """One record, or None."""
        try:
            with open(self._file(name, "json"), encoding="utf-8") as stream:
                return dict(json.load(stream))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise LunError(
                f"the record {self._file(name, 'json')} is damaged ({error}): remove it, and end the LUN by its name"
            ) from error

    def write(self, record: dict[str, Any], **changes: Any) -> None:
        """Change a record and write it, whole or not at all."""
        record.update(changes)
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        temporary = self._file(record["name"], "new")
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as stream:
            json.dump(record, stream, indent=1)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, self._file(record["name"], "json"))

    def forget(self, name: str) -> None:
        """Remove a record. Fine where there is none."""
        for ending in ("new", "json"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._file(name, ending))

    @contextlib.contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Keep other modules away from a LUN. The lock ends with its process, so that none is left by a killed one."""
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        path = self._file(name, "lock")
        descriptor = _lock(path)
        try:
            yield
        finally:
            # Unlinked while it is held: whoever waited for it sees that and takes the new one.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            os.close(descriptor)

    def _file(self, name: str, ending: str) -> str:
        return os.path.join(self.folder, f"{name}.{ending}")


def shown(record: dict[str, Any]) -> dict[str, Any]:
    """What a record tells to others."""
    return {key: record[key] for key in SHOWN if key in record}


def _lock(path: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        os.close(descriptor)
