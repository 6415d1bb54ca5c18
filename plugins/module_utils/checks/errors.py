# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a check ends that has not passed. Every text names the thing, the cause and the way out."""

from __future__ import annotations


class CheckFailed(Exception):
    """What was checked is not as it has to be, or cannot be checked. The text is one line."""
