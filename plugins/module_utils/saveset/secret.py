# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person or a program holds to open a repository."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class ScryptCost:
    """The work that one try of a passphrase costs: memory is ``128 * n * r`` bytes (64 MiB by default)."""

    n: int = 1 << 16
    r: int = 8
    p: int = 1


@dataclass(frozen=True)
class Secret:
    """The secret of a repository; an empty one opens a repository without encryption.

    :param passphrase: the passphrase as bytes, at least one byte; None for a repository without encryption.
    :param cost: used when a passphrase is set; opening uses what the key file says.
    """

    passphrase: bytes | None = field(default=None, repr=False)
    cost: ScryptCost = field(default=ScryptCost())
