# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options with which modules name a repository."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.repository)."""

    DOCUMENTATION = r"""
requirements:
  - Python 3.11 or newer, with blake3, zstandard and cryptography, in the environment that the role
    P(openisb.backup.repository#role) makes
options:
  repository:
    description: Folder of the repository.
    type: path
    required: true
  passphrase:
    description:
      - Passphrase of the repository. Needed unless the repository is unencrypted.
      - Where it is left out, the environment variable E(OPENISB_PASSPHRASE) is used.
    type: str
"""
