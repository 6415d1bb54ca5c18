# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The stores that there are, by the scheme of their locations."""

from __future__ import annotations

import typing as t

from ..base.errors import InvalidValue
from .local import LocalStore
from .store import Store

#: A location without a scheme is the path of a folder.
FILE = "file"
#: One class, in a file of its own, for each scheme in lower case.
STORES: t.Mapping[str, type[Store]] = {FILE: LocalStore}


def open_store(location: str) -> Store:
    """The store at a location, a path or ``scheme://...``, which need not exist yet; touches nothing.

    Raises InvalidValue, also for a scheme that no store has.
    """
    scheme, is_url, _rest = location.partition("://")
    kind = STORES.get(scheme.lower() if is_url else FILE)
    if kind is None:
        known = ", ".join(f"{each}://" for each in sorted(STORES))
        raise InvalidValue(
            f"store {location}",
            f"no store has the scheme {scheme!r} in this version",
            f"Name a folder, like /srv/repository, or a location that begins with one of: {known}",
        )
    return kind.at(location)
