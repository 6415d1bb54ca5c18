# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the module of this name without writing its secrets to any disk."""

from __future__ import annotations

from ansible_collections.openisb.backup.plugins.plugin_utils.confidential import ActionModule

__all__ = ["ActionModule"]
