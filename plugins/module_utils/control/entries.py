# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What control passes around; the functions say which keys they take and return."""

from __future__ import annotations

from typing import Any

Entry = dict[str, Any]
Record = dict[str, Any]
"""Of a journal: seq, time, run_id, event, data, previous, hash."""
