# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Documents in ``features``: what newer versions have added to a repository, and what it forbids to older ones.

One that cannot be read, or is not from this repository, may require anything: reading goes on, as it would with a
copy without the document, and nothing is written.
"""

from __future__ import annotations

import typing as t

from ..base.errors import Damaged, NotFound, UnsupportedFormat
from ..keys.keys import KeyRing
from ..store.store import Store
from .document import decode_document

FOLDER = "features"


class Features(t.NamedTuple):
    """Whether some forbid this version to write, and the problems of unreadable ones, as (object, text)."""

    forbid: bool
    problems: tuple[tuple[str, str], ...]

    @property
    def read_only(self) -> bool:
        """Whether this version must not write."""
        return self.forbid or bool(self.problems)


def read_features(store: Store, ring: KeyRing) -> Features:
    """The repository's features.  Raises UnsupportedFormat if they forbid this version to read."""
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
    """The reason why a repository is read-only."""
    for name, problem in read_features(store, ring).problems:
        return UnsupportedFormat(
            f"{name} in {store.location}",
            f"it may forbid this version to write, and cannot be read: {problem}",
            "Put back a copy of it, or remove it if nobody here put it there",
        )
    return UnsupportedFormat(
        store.location, "a newer version gave it features that forbid this one to write", "Use a newer version"
    )
