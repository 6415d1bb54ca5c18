# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A store whose writing goes through steps, so that a test can let any one of them fail."""

from __future__ import annotations

import abc
import typing as t

from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.store import Upload


class SteppingStore(LocalStore, abc.ABC):
    """Calls step() before an upload begins, before each write to it and before it is published."""

    @abc.abstractmethod
    def step(self) -> None:
        """One step of writing; raises what it fails with."""

    def create(self, name: str) -> Upload:
        self.step()
        return _SteppingUpload(self, super().create(name))


class _SteppingUpload(Upload):
    def __init__(self, store: SteppingStore, inner: Upload) -> None:
        self._store = store
        self._inner = inner

    def write(self, buffers: t.Sequence[t.Any]) -> None:
        self._store.step()
        self._inner.write(buffers)

    def publish(self, exclusive: bool = True) -> None:
        self._store.step()
        self._inner.publish(exclusive)

    def abort(self) -> None:
        self._inner.abort()
