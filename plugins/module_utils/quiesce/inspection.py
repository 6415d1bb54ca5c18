# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight sees of a server: the holds that are recorded there, and whether its drivers could freeze."""

from __future__ import annotations

from typing import Any

from ..host.errors import HostError, OptionError
from . import drivers, manage
from .drivers.base import Driver


class CannotInspect(Exception):
    """The holds of a server cannot be listed; the text names the folder and the cause."""


def inspect(run_dir: str, descriptions: list[dict[str, Any]]) -> dict[str, Any]:
    """A dict of holders (the recorded holds) and checks (a result for each driver of ``descriptions``)."""
    try:
        holders = [found.public() for found in manage.find_all(run_dir)]
        return {"holders": holders, "checks": _checks(run_dir, descriptions)}
    except (HostError, OSError) as error:
        raise CannotInspect(f"The holds in {run_dir} cannot be listed: {error}") from error


def _checks(run_dir: str, descriptions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One result for each driver, also for one whose options are wrong."""
    built: list[Driver] = []
    results = []
    for description in descriptions:
        try:
            built += drivers.build([description])
        except OptionError as error:
            results.append({"driver": str(description.get("name")), "ok": False, "message": str(error)})
    return results + manage.check(run_dir, built)
