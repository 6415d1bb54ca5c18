# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Errors of quiescing. Every text names the thing, the cause and the remedy."""

from __future__ import annotations

from ..host.errors import HostError


class Refused(HostError):
    """The state of the hold does not allow the request."""


class HolderError(HostError):
    """The holder could not be started, does not respond, or belongs to another run."""
