# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume ids that differ only in case: a case-insensitive filesystem gives them the same folder.

The commits of the second volume would be in the first volume's folder, under a name that is not theirs, and would
never be listed.  A repository may be copied to such a filesystem at any time, so no volume may be added whose id
differs only in case from an existing one.
"""

from __future__ import annotations

from .base.errors import InvalidValue
from .base.volume import folded, volume_folder, volume_of_folder
from .store.store import Store

_SAVESETS = "savesets"


def check_alone(store: Store, volume: str) -> None:
    """Raise InvalidValue if a volume has no savesets yet and one whose id differs only in case has a folder there."""
    mine, there = volume_folder(volume), store.folders(_SAVESETS)
    if mine in there:
        return
    for folder in there:
        if folded(folder) == folded(mine):
            raise InvalidValue(
                f"volume id {volume!r}",
                f"the repository has {volume_of_folder(folder)!r}, which differs only in upper and lower case; "
                "on a case-insensitive filesystem the savesets of one would be lost among the other's",
                "Use the existing spelling, or rename the volume or its server",
            )


def check_listed(store: Store, volume: str, commit: str) -> None:
    """Raise InvalidValue unless a commit that was put is listed, in a folder that only its volume uses.

    A volume whose id differs only in case may have been added at the same time, and some filesystems change names.
    """
    check_alone(store, volume)
    folder = f"{_SAVESETS}/{volume_folder(volume)}"
    if volume_folder(volume) not in store.folders(_SAVESETS) or commit not in store.list(folder):
        raise InvalidValue(
            f"store {store.location}",
            "it lists a saveset's commit under another name than the one it was written under, so the saveset would "
            "never be found: the filesystem changes names, for example from upper to lower case",
            "Mount it so that it preserves names, or use another one",
        )
