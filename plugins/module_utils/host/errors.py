# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of what is set up by an inventory: quiesce drivers, and the checks of a drill.

Every text names the thing, the cause and the remedy.
"""

from __future__ import annotations


class HostError(Exception):
    """Base of the errors that are raised on purpose on a host."""


class DriverError(HostError):
    """A driver could not test, freeze or thaw, or a program could not do its work."""


class OptionError(HostError):
    """The options of a driver or of a check are wrong."""
