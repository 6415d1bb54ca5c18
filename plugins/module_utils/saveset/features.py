# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents in ``features``: what newer versions have added to a repository, and whom that forbids to read or to write.

One that cannot be read, or is not of this repository, may ask for anything: reading goes on, as it would with a copy
that lacks the document, and nothing is written.
"""

from __future__ import annotations

import typing as t

from .document import decode_document
from .errors import Damaged, NotFound, UnsupportedFormat
from .keys import KeyRing
from .store import Store

FOLDER = "features"


class Features(t.NamedTuple):
    """Whether some forbid this version to write, and what is wrong with those that cannot be read: (object, text)."""

    forbid: bool
    problems: tuple[tuple[str, str], ...]

    @property
    def read_only(self) -> bool:
        """Whether this version had better not write."""
        return self.forbid or bool(self.problems)


def read_features(store: Store, ring: KeyRing) -> Features:
    """What was added.  Raises UnsupportedFormat when it forbids this version to read."""
    forbid = False
    problems = []
    try:
        names = store.list(FOLDER)
    except Damaged as error:
        return Features(False, ((error.thing, error.cause),))
    for name in names:
        try:
            document = decode_document(name, store.get(name), "feature", ring.mac)
        except NotFound:
            continue  # removed since it was listed
        except Damaged as error:
            problems.append((name, error.cause))
        else:
            forbid = forbid or document.read_only
    return Features(forbid, tuple(problems))


def read_only_error(store: Store, ring: KeyRing) -> UnsupportedFormat:
    """Why a repository that is read-only is."""
    for name, problem in read_features(store, ring).problems:
        return UnsupportedFormat(
            f"{name} in {store.location}",
            f"nobody can tell whether it forbids this version to write: {problem}",
            "Put back a copy of it, or remove it if nobody here has put it there",
        )
    return UnsupportedFormat(
        store.location, "a newer version gave it features that forbid this one to write", "Use a newer version"
    )
