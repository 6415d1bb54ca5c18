# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for a run: thin wrappers around module_utils, where the work is done and tested."""

from __future__ import annotations

import datetime
import secrets

from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import lazy, load


def new_run_id(prefix):
    """A run id that sorts by time: ``isb-20261123T021500Z-4f1c2a``."""
    now = datetime.datetime.now(datetime.UTC)
    return "{}-{}-{}".format(prefix, now.strftime("%Y%m%dT%H%M%SZ"), secrets.token_hex(3))


def failure_text(result):
    """Why a task failed, from its result, as one line of plain text."""
    details = [str(result.get(key, "")).strip() for key in ("msg", "stderr", "module_stderr")]
    texts = [detail for detail in details if detail]
    if texts[1:] and texts[0].startswith(("MODULE FAILURE", "non-zero return code")):
        texts = texts[1:]
    return load("host.plain").plain(" ".join(texts[0].split())) if texts else "no reason given"


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {
            "new_run_id": new_run_id,
            "failure_text": failure_text,
            "epoch": lazy("control.moments.epoch"),
        }
