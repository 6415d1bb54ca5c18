# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options with which modules are told what a restore may write over."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.target)."""

    DOCUMENTATION = r"""
options:
  overwrite:
    description:
      - Identities of targets that may be written over though they hold something.
      - Of a disk its WWN or serial number; of a block device that has neither, what it holds, as C(content:) and 16 hex
        digits; of a file its path and size, as C(/srv/dr/fs1-m.img:268435456). The refusal of a target names it.
    type: list
    elements: str
    default: []
  state_dir:
    description: Folder for what has to outlive the host's restart, where it is on record what restores have written.
    type: path
    default: /var/lib/openisb
"""
