# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The one kind of error of LUNs on a DR host, apart so that every file can raise it."""

from __future__ import annotations


class LunError(Exception):
    """A LUN cannot be made, read or ended; the text names it, the cause and the way out."""
