# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What can go wrong while quiescing. Every text names the thing, the cause and the way out."""

from __future__ import annotations


class QuiesceError(Exception):
    """Base of all errors of this package."""


class DriverError(QuiesceError):
    """A driver could not check, freeze or thaw."""


class OptionError(QuiesceError):
    """A driver's options are wrong."""


class Refused(QuiesceError):
    """The hold is not in a state in which it can do what was asked."""


class HolderError(QuiesceError):
    """The holder could not be started, does not answer, or belongs to another run."""
