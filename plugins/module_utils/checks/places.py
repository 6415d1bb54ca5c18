# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where production's paths are on this host: below the mounts of the drill."""

from __future__ import annotations

import os

from .errors import CheckFailed

MOST_LINKS = 40
"""As many as the kernel follows in one path."""


class Places:
    """``mounts``: where production mounts a volume -> where it is mounted here."""

    def __init__(self, mounts: dict[str, str]) -> None:
        normal = {os.path.normpath(there): os.path.normpath(here) for there, here in mounts.items()}
        self._mounts = sorted(normal.items(), key=lambda mount: len(mount[0]), reverse=True)

    @property
    def mounts(self) -> list[str]:
        """Production's mounts."""
        return sorted(there for there, _here in self._mounts)

    def split(self, path: str) -> tuple[str, str]:
        """The folder here, and the path below it (empty for the folder itself), of a path of production.

        The mount with the longest name counts. Raises CheckFailed.
        """
        path = os.path.normpath(path)
        for there, here in self._mounts:
            below = _below(path, there)
            if below is not None:
                return here, below
        known = ", ".join(self.mounts) or "none"
        raise CheckFailed(
            f"{path} is on none of the mounted volumes ({known}): correct the path, or have its volume mounted too"
        )

    def here(self, path: str) -> str:
        """Where a path of production is on this host. Raises CheckFailed."""
        return _join(*self.split(path))

    def there(self, path: str) -> str:
        """How production calls a path of this host; as it is where it is on none of the mounts."""
        for there, here in sorted(self._mounts, key=lambda mount: len(mount[1]), reverse=True):
            below = _below(path, here)
            if below is not None:
                return _join(there, below)
        return path

    def resolve(self, path: str) -> str:
        """A path of this host with its links followed as production would: absolute ones lead to the mounts.

        Never leads out of the mounts, so that a file of this host is not taken for one of the copy. Raises CheckFailed.
        """
        followed, links = path, 0
        while True:
            followed = os.path.join(os.path.realpath(os.path.dirname(followed)), os.path.basename(followed))
            if not os.path.islink(followed):
                break
            links += 1
            if links > MOST_LINKS:
                raise CheckFailed(f"{self.there(path)} is a link that leads in a circle")
            target = os.readlink(followed)
            below = os.path.join(os.path.dirname(followed), target)
            followed = self.here(target) if os.path.isabs(target) else os.path.normpath(below)
        if not any(_below(followed, os.path.realpath(here)) is not None for _there, here in self._mounts):
            raise CheckFailed(f"{self.there(path)} leads out of the mounted volumes, to {followed}")
        return followed


def _join(folder: str, below: str) -> str:
    return os.path.join(folder, below) if below else folder


def _below(path: str, folder: str) -> str | None:
    """The path as seen from a folder; empty for the folder itself, None where it is not in there."""
    if path == folder:
        return ""
    prefix = folder.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None
