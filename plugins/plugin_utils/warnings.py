# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What preflight warns of: findings that do not stop a run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.openisb.backup.plugins.module_utils.control.connection_limits import session_warnings
from ansible_collections.openisb.backup.plugins.module_utils.control.controller_settings import settings_warnings
from ansible_collections.openisb.backup.plugins.module_utils.control.lun_names import name_warnings
from ansible_collections.openisb.backup.plugins.module_utils.control.placing import unused_warnings

from .forward import place_problem


def preflight_warnings(hostvars: Mapping[str, Any], groups: Any, forks: int, unparsed_fails: bool) -> list[str]:
    """The warnings, one text each. ``forks``, ``unparsed_fails``: settings of the controller."""
    found = name_warnings(groups, hostvars) + settings_warnings(groups, int(forks), bool(unparsed_fails))
    found += unused_warnings(groups, hostvars)
    return [*found, *session_warnings(hostvars, groups, int(forks)), *filter(None, [place_problem()])]
