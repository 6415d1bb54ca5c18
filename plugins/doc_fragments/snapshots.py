# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that identify the snapshots of a storage host."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.snapshots)."""

    DOCUMENTATION = r"""
options:
  driver:
    description: The storage driver that made the snapshots.
    type: str
    choices: [btrfs, file]
    required: true
  directory:
    description: The folder that holds the snapshots.
    type: path
    required: true
"""
