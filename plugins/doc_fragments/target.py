# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say what a restore may overwrite."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.target)."""

    DOCUMENTATION = r"""
options:
  overwrite:
    description:
      - Identities of targets that may be overwritten although they hold something.
      - For a disk, its WWN or serial number; for a block device that has neither, what it holds, as C(content:) and 16
        hex digits; for a file, its path and size, as C(/srv/dr/fs1-m.img:268435456). The refusal of a target names its
        identity.
    type: list
    elements: str
    default: []
  state_dir:
    description:
      - Folder for state that must survive a restart of the host, such as the records of what restores have written.
    type: path
    default: /var/lib/openisb
"""
