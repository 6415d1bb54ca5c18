# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The quiesce drivers, by name."""

from __future__ import annotations

from typing import Any, Sequence

from ...host.errors import OptionError
from .base import Driver, check_options
from .command import CommandDriver
from .filesystem import FilesystemDriver
from .gtm import GtmDriver
from .iris import IrisDriver
from .mariadb import MariadbDriver
from .mbf import MbfDriver
from .postgresql import PostgresqlDriver

DRIVERS: dict[str, type[Driver]] = {
    driver.name: driver
    for driver in (CommandDriver, FilesystemDriver, GtmDriver, IrisDriver, MariadbDriver, MbfDriver, PostgresqlDriver)
}
NAMES = ", ".join(sorted(DRIVERS))


def build(descriptions: list[dict[str, Any]], marks: Sequence[dict[str, Any]] = (), run_id: str = "") -> list[Driver]:
    """Drivers from their descriptions (``name`` and the driver's own options), in that order.

    ``marks``, if given, says for each driver what it may have frozen. Raises OptionError.
    """
    if not descriptions:
        raise OptionError(f"no driver given: list at least one of {NAMES}")
    known = list(marks) or [{} for _description in descriptions]
    built = [_build(description, mark) for description, mark in zip(descriptions, known)]
    for driver in built:
        driver.run_id = run_id
    return built


def _build(description: dict[str, Any], marks: dict[str, Any]) -> Driver:
    name = description.get("name") if isinstance(description, dict) else None
    if name is None:
        raise OptionError(f"a driver needs a 'name': one of {NAMES}")
    if name not in DRIVERS:
        raise OptionError(f"there is no driver '{name}': use one of {NAMES}")
    return DRIVERS[name](check_options(DRIVERS[name], description), marks)
