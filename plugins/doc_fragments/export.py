# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of modules that export over NBD."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragments, used as C(openisb.backup.export) and C(openisb.backup.export.state)."""

    DOCUMENTATION = r"""
options:
  address:
    description: Name or address of this host on which to listen. Required with O(state=present).
    type: str
  tls:
    description:
      - Whether clients need the export's key and all traffic is encrypted.
      - Can be turned off only if O(address) is a loopback address.
    type: bool
    default: true
  run_dir:
    description: Folder for volatile state.
    type: path
    default: /run/openisb
"""

    STATE = r"""
options:
  state:
    description: Whether the export should exist.
    type: str
    choices: [present, absent]
    default: present
"""
