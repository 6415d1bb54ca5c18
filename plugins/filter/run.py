# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for a run: thin wrappers around module_utils, where the work is done and tested."""

from __future__ import annotations

import datetime
import secrets

from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import lazy


def new_run_id(prefix):
    """A run id that sorts by time: ``isb-20261123T021500Z-4f1c2a``."""
    now = datetime.datetime.now(datetime.UTC)
    return "{}-{}-{}".format(prefix, now.strftime("%Y%m%dT%H%M%SZ"), secrets.token_hex(3))


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "new_run_id": new_run_id,
            "failure_text": lazy("control.failures.failure_text"),
            "epoch": lazy("control.moments.epoch"),
        }
