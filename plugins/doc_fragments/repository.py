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
      - Passphrase of the repository, or of a write-only key. Must be left out for an unencrypted repository
        (O(encryption=none)), and is not needed where O(private_key) is given.
      - Where it is left out, the environment variable E(OPENISB_PASSPHRASE) is used.
    type: str
  private_key:
    description:
      - PEM file, on the host where the module runs, with the private key of an escrow key of the repository.
    type: path
  private_key_password:
    description:
      - Password of that file, where it is encrypted.
      - Where it is left out, the environment variable E(OPENISB_PRIVATE_KEY_PASSWORD) is used.
    type: str
  encryption:
    description:
      - What the repository must be protected with; a new one is.
      - One without encryption is refused unless V(none) is asked for by name, as somebody may have put it in the place
        of another one. Nothing proves who wrote it.
    type: str
    choices: [aes-256-gcm, none]
    default: aes-256-gcm
"""
