# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The error of LUNs on a DR host, in a separate file so that every other file can import it."""

from __future__ import annotations


class LunError(Exception):
    """A LUN cannot be created, read or ended; the text names it, the cause and the remedy."""
