# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that identify the kept head of a run journal."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.journal_head)."""

    DOCUMENTATION = r"""
options:
  repository:
    description: The repository.
    type: path
    required: true
  listener:
    description: The host that has the journal, by its name in the inventory.
    type: str
    required: true
  key:
    description: The private key that signs drill reports and journal heads.
    type: path
    required: true
"""
