# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Attributes that modules of this collection share."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments: C(openisb.backup.attributes), alone or with C(.info) or C(.holders)."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in check mode and report what would change, without changing it.
    support: full
  diff_mode:
    description: Returns what changed, or would change, in diff mode.
    support: full
  platform:
    description: The systems that it runs on.
    platforms: posix
    support: full
"""

    INFO = r"""
options: {}
attributes:
  check_mode:
    description: Changes nothing, so it does in check mode what it does otherwise.
    support: full
  diff_mode:
    description: Changes nothing, so there is no difference to return.
    support: N/A
  platform:
    description: The systems that it runs on.
    platforms: posix
    support: full
"""

    HOLDERS = r"""
options: {}
attributes:
  action:
    description: Runs on the controller.
    support: full
  check_mode:
    description: In check mode the holders are only asked for their status.
    support: full
  diff_mode:
    description: Returns no difference.
    support: none
  platform:
    description: The systems that it runs on.
    platforms: posix
    support: full
"""
