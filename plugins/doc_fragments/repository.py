# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that identify and open a repository."""

from __future__ import annotations


class ModuleDocFragment:
    """Documentation fragment, used as C(openisb.backup.repository)."""

    DOCUMENTATION = r"""
requirements:
  - Python 3.11 or newer, with blake3, zstandard and cryptography, in the environment that the role
    P(openisb.backup.repository#role) creates
options:
  repository:
    description: Folder of the repository.
    type: path
    default: /var/lib/openisb/repository
  passphrase:
    description:
      - Passphrase of the repository, or of a write-only key. Must be omitted for an unencrypted repository
        (O(encryption=none)), and is not needed if O(private_key) is given.
      - If omitted, the environment variable E(OPENISB_PASSPHRASE) is used.
    type: str
  private_key:
    description:
      - PEM file, on the host where the module runs, with the private key of an escrow key of the repository.
    type: path
  private_key_password:
    description:
      - Password of that file, if it is encrypted.
      - If omitted, the environment variable E(OPENISB_PRIVATE_KEY_PASSWORD) is used.
    type: str
  encryption:
    description:
      - How the repository must be protected; a new one is created so.
      - An unencrypted repository is refused unless V(none) is given, because somebody may have put it in the place of
        another one. Nothing proves who wrote it.
    type: str
    choices: [aes-256-gcm, none]
    default: aes-256-gcm
"""
