# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The peers that the engine is compared with, a file each."""

from __future__ import annotations

from ..contender import Contender
from .benji import Benji
from .borg import Borg
from .casync import Casync
from .dd import Dd
from .pipeline import Pipeline
from .restic import Restic

#: By the names that PEERS= takes.
PEERS: dict[str, type[Contender]] = {peer.name: peer for peer in (Restic, Borg, Benji, Casync, Pipeline, Dd)}
