# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The checks, by name."""

from __future__ import annotations

from typing import Any

from ..host.errors import OptionError
from ..host.options import complete
from .base import COMMON, Check, Surroundings
from .command import CommandCheck
from .files import FilesCheck
from .filesystem import FilesystemCheck
from .gtm import GtmCheck
from .places import Places
from .postgresql import PostgresqlCheck

CHECKS: dict[str, type[Check]] = {
    check.name: check for check in (CommandCheck, FilesCheck, FilesystemCheck, GtmCheck, PostgresqlCheck)
}
NAMES = ", ".join(sorted(CHECKS))


def problems_of(descriptions: list[dict[str, Any]]) -> list[str]:
    """The errors in descriptions of checks, as far as they can be found without the copy."""
    found = []
    for number, description in enumerate(descriptions, start=1):
        try:
            build(description, Surroundings(Places({}), {}, {}))
        except OptionError as error:
            found.append(f"the description of check {number} is wrong: {error}")
    return found


def build(description: dict[str, Any], surroundings: Surroundings) -> Check:
    """A check from its description: ``name`` and the check's own options. Raises OptionError."""
    name = description.get("name")
    if name is None:
        raise OptionError(f"a check needs a 'name': one of {NAMES}")
    if name not in CHECKS:
        raise OptionError(f"there is no check '{name}': use one of {NAMES}")
    return CHECKS[name](complete(f"check {name}", {**COMMON, **CHECKS[name].options}, description), surroundings)
