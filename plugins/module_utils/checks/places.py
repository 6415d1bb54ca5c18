# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps production's paths to this host: below the mounts of the drill."""

from __future__ import annotations

import os

from .beneath import open_beneath
from .errors import CheckFailed

MOST_LINKS = 40
"""The kernel's limit for one path."""


class Places:
    """``mounts``: where production mounts a volume -> where it is mounted here."""

    def __init__(self, mounts: dict[str, str]) -> None:
        normal = {os.path.normpath(there): os.path.normpath(here) for there, here in mounts.items()}
        self._mounts = sorted(normal.items(), key=lambda mount: len(mount[0]), reverse=True)

    @property
    def mounts(self) -> list[str]:
        """Production's mount points."""
        return sorted(there for there, _here in self._mounts)

    @property
    def roots(self) -> list[str]:
        """Their mount points on this host."""
        return sorted(here for _there, here in self._mounts)

    def split(self, path: str) -> tuple[str, str]:
        """The mount point here, and the path below it (empty for the mount point itself), of a path of production.

        The longest matching mount point counts. Raises CheckFailed.
        """
        path = os.path.normpath(path)
        on = self._on(path)
        if on is None:
            raise CheckFailed(
                f"{path} is on none of the mounted volumes ({self._known()}): correct the path, or mount its volume too"
            )
        return on

    def here(self, path: str) -> str:
        """The path on this host of a path of production. Raises CheckFailed."""
        return _join(*self.split(path))

    def there(self, path: str) -> str:
        """Production's name of a path of this host; unchanged if it is on none of the mounts."""
        for there, here in sorted(self._mounts, key=lambda mount: len(mount[1]), reverse=True):
            below = _below(path, here)
            if below is not None:
                return _join(there, below)
        return path

    def resolve(self, path: str) -> str:
        """Resolve a path of this host as production would: absolute links lead to the mounts.

        Every link and every mount in the path counts, as on production, and this host's kernel follows no link. The
        result has no links and is on the mounts; it need not exist. Raises CheckFailed if the path leads out of the
        copy.
        """
        named = self.there(path)
        ahead, gone, links = _parts(named), "/", 0
        while ahead:
            part, *ahead = ahead
            if part == "..":
                gone = os.path.dirname(gone)
                continue
            target = self._link(os.path.join(gone, part))
            if target is None:
                gone = os.path.join(gone, part)
                continue
            links += 1
            if links > MOST_LINKS:
                raise CheckFailed(f"{named} is a link that leads to itself")
            if os.path.isabs(target):
                gone = "/"
                target = target if self._on(target) else self.there(target)  # a link that a check has corrected
            ahead = [*_parts(target), *ahead]
        if not links or self._on(gone):
            return self.here(gone)
        raise CheckFailed(
            f"{named} leads to {gone}, which is on none of the mounted volumes ({self._known()}): mount its volume "
            "too, or name a path that is in the copy"
        )

    def open(self, path: str, flags: int) -> int:
        """A descriptor of a result of ``resolve``; follows no link and does not block. Raises CheckFailed, OSError."""
        return open_beneath(*self.split(self.there(path)), flags)

    def _link(self, path: str) -> str | None:
        """The target of a link at a path of production; None if it is not a link, or not below a mount point."""
        on = self._on(path)
        if not on or not on[1]:
            return None
        try:
            return os.readlink(_join(*on))
        except OSError:
            return None

    def _on(self, path: str) -> tuple[str, str] | None:
        for there, here in self._mounts:
            below = _below(path, there)
            if below is not None:
                return here, below
        return None

    def _known(self) -> str:
        return ", ".join(self.mounts) or "none"


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _join(folder: str, below: str) -> str:
    return os.path.join(folder, below) if below else folder


def _below(path: str, folder: str) -> str | None:
    """The path relative to a directory; empty for the directory itself, None if it is not below it."""
    if path == folder:
        return ""
    prefix = folder.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None
