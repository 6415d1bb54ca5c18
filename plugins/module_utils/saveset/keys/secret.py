# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The secrets with which a person or a program opens a repository."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ScryptCost:
    """The cost of one attempt at a passphrase: memory is ``128 * n * r`` bytes (64 MiB by default)."""

    n: int = 1 << 16
    r: int = 8
    p: int = 1

    @property
    def work(self) -> int:
        """The work as a number that is proportional to the time."""
        return self.n * self.r * self.p

    @property
    def memory(self) -> int:
        """The memory needed, in bytes."""
        return 128 * self.r * (self.n + self.p)

    def problem(self) -> str:
        """Why a key file may not have this cost; empty if it may. It is paid before anything is authenticated."""
        if self.n < 2 or self.n & (self.n - 1) or not 1 <= self.r <= 64 or not 1 <= self.p <= 64:
            return "n is not a power of two, or r or p is not from 1 to 64"
        if self.memory > SCRYPT_MEMORY_MAX or self.work > SCRYPT_WORK_MAX:
            return f"it takes more than {SCRYPT_MEMORY_MAX >> 20} MiB, or more than {_TIMES} times the usual time"
        return ""


#: The highest cost of one key file, and the highest total cost of trying all of them: some 16 seconds.
_TIMES = 8
SCRYPT_MEMORY_MAX = 513 << 20
SCRYPT_WORK_MAX = _TIMES * ScryptCost().work
SCRYPT_WORK_ALL = 80 * ScryptCost().work


@dataclass(frozen=True)
class Secret:
    """The secret of a repository.

    Any one is enough; those that open the repository for reading are tried before those for writing only.

    :param passphrase: the passphrase as bytes, at least one byte: of the repository, or of a write-only server.
    :param cost: used when a passphrase is set; opening uses the cost in the key file.
    :param private_key: the content of a PEM file with the X25519 private key of an escrow key.
    :param private_key_password: opens the PEM file if that is encrypted.
    :param master: the master key itself, 32 bytes, as on a recovery sheet: needs no key file.
    :param exported: an exported key, for a repository that lost its folder ``keys``: opened like a key file.
    :param unencrypted: the caller expects a repository without encryption, which proves nothing about its author.
        Without this, none is opened: it may have been put in place of an encrypted one.
    """

    passphrase: bytes | None = field(default=None, repr=False)
    cost: ScryptCost = field(default=ScryptCost())
    private_key: bytes | None = field(default=None, repr=False)
    private_key_password: bytes | None = field(default=None, repr=False)
    master: bytes | None = field(default=None, repr=False)
    exported: bytes | None = field(default=None, repr=False)
    unencrypted: bool = False

    @property
    def is_empty(self) -> bool:
        """Whether nothing in it could open an encrypted repository."""
        return not (self.passphrase or self.private_key or self.master)
