# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a task failed, for people."""

from __future__ import annotations

from typing import Any

from ..host.plain import plain


def failure_text(result: Any) -> str:
    """Why a task failed, from its result, as one line of plain text."""
    details = [str(result.get(key, "")).strip() for key in ("msg", "stderr", "module_stderr")]
    texts = [detail for detail in details if detail]
    if texts[1:] and texts[0].startswith(("MODULE FAILURE", "non-zero return code")):
        texts = texts[1:]
    return plain(" ".join(texts[0].split())) if texts else "no reason given"
