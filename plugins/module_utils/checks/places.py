# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where production's paths are on this host: below the mounts of the drill."""

from __future__ import annotations

import os

from .beneath import open_beneath
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

    @property
    def roots(self) -> list[str]:
        """Where they are on this host."""
        return sorted(here for _there, here in self._mounts)

    def split(self, path: str) -> tuple[str, str]:
        """The folder here, and the path below it (empty for the folder itself), of a path of production.

        The mount with the longest name counts. Raises CheckFailed.
        """
        path = os.path.normpath(path)
        on = self._on(path)
        if on is None:
            raise CheckFailed(
                f"{path} is on none of the mounted volumes ({self._known()}): correct the path, or have its volume "
                "mounted too"
            )
        return on

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

        Every link counts, in the middle of the path as well, and so does every mount: the way is the one that
        production would go, and no link is followed by this host. What comes out has none in it, and is on the mounts;
        it need not exist. Raises CheckFailed where the way leads to what is not in the copy.
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
                raise CheckFailed(f"{named} is a link that leads in a circle")
            if os.path.isabs(target):
                gone = "/"
                target = target if self._on(target) else self.there(target)  # one that a check has set right
            ahead = [*_parts(target), *ahead]
        if not links or self._on(gone):
            return self.here(gone)
        raise CheckFailed(
            f"{named} leads to {gone}, which is on none of the mounted volumes ({self._known()}): have its volume "
            "mounted too, or name what is in the copy"
        )

    def open(self, path: str, flags: int) -> int:
        """A descriptor of what ``resolve`` has found: no link is followed any more, nothing waited for.

        Raises CheckFailed, OSError.
        """
        return open_beneath(*self.split(self.there(path)), flags)

    def _link(self, path: str) -> str | None:
        """Where a path of production leads to by itself; None where it is no link, or above all mounts."""
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
    """The path as seen from a folder; empty for the folder itself, None where it is not in there."""
    if path == folder:
        return ""
    prefix = folder.rstrip("/") + "/"
    return path[len(prefix) :] if path.startswith(prefix) else None
