# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error of a failed check. Every text names the thing, the cause and the remedy."""

from __future__ import annotations


class CheckFailed(Exception):
    """The check failed, or could not be done. The text is one line."""
