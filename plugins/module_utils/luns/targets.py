# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restores may write to on this host: nothing that is in use, and no content that nobody has given up.

The engine finds what is on a target and claims it (saveset.claim); this module decides with what is on record.
"""

from __future__ import annotations

import os
from typing import Sequence

from ..saveset.base.errors import TargetBusy, TargetError, TargetTooSmall
from ..saveset.io import blocks, claim
from .errors import LunError
from .records import FOLDER, Records
from .standbys import RESTORED, STANDBY, Standby

#: What an operator writes before the identity of a target whose content may be overwritten.
OPTION = "-e restore_overwrite="

#: What a target is for: a standby; a disk or file that stays; a file of a drill, which is not recorded.
PURPOSES = (STANDBY, RESTORED, "once")

ARGUMENTS = {
    "overwrite": {"type": "list", "elements": "str", "default": []},
    "state_dir": {"type": "path", "default": "/var/lib/openisb"},
}
BLOCK_SIZE = {"block_size": {"type": "int", "default": 0}}


class Target:
    """The target ``path`` of a volume's restore: ``size`` is the volume's, ``overwrite`` the identities given up.

    ``block_size``: the smallest block that the volume's content reads and writes; 0 where that is not known.
    """

    def __init__(
        self,
        path: str,
        volume: str,
        size: int,
        overwrite: Sequence[str] = (),
        state_dir: str = "/var/lib/openisb",
        run_dir: str = "/run/openisb",
        block_size: int = 0,
    ) -> None:
        self.path = os.path.realpath(path)
        self.volume = volume
        self.size = size
        self.block_size = block_size
        self.overwrite = overwrite
        self.run_dir = run_dir
        self.standby = Standby(state_dir, path)

    def check(self) -> None:
        """Raise TargetError where it cannot be restored to. Changes nothing, and releases the target again."""
        if os.path.lexists(self.path):
            self.take().close()
            return
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise TargetError(self.path, f"there is no folder {folder}", "Create it, or name another file")

    def take(self) -> claim.Held:
        """Claim the target (a missing file is created), a claim.Held that may be overwritten. Raises TargetError."""
        _check_drills(self.path, self.run_dir)
        held = claim.hold(self.path, create=True)
        try:
            if held.is_block and held.size < self.size:
                raise _too_small(held, self.size)
            blocks.check_target(held.fd, held.path, self.block_size)
            claim.allow(held, self.overwrite, lambda own: self.standby.vouches(own, self.volume), OPTION)
        except BaseException:
            held.close()
            raise
        return held

    def begin(self, held: claim.Held, purpose: str, keep: bool) -> dict[str, str]:
        """Record that it is being written, and make a file as long as the volume, empty unless ``keep``.

        Returns what it was known to hold (see Standby.held).
        """
        before = self.standby.held()
        if purpose != "once":
            self.standby.begin(self.volume, purpose)
        if not held.is_block and (held.size != self.size or not keep):
            if not keep:
                os.ftruncate(held.fd, 0)
            os.ftruncate(held.fd, self.size)
        return before

    def end(self, purpose: str, saveset: tuple[str, str] | None = None) -> None:
        """Record what it holds now, before it is released: a saveset (run_id, id); None where it is incomplete."""
        if purpose == "once":
            return
        if saveset is None:
            self.standby.begin(self.volume, purpose)
        else:
            self.standby.remember(self.volume, *saveset, purpose)


def _check_drills(path: str, run_dir: str) -> None:
    """Refuse the source of a drill's LUN: it would change while the drill uses it."""
    try:
        luns = [lun for lun in Records(os.path.join(run_dir, FOLDER)).all() if os.path.realpath(lun["source"]) == path]
    except LunError as error:
        raise TargetError(path, f"it is not known whether a drill uses it ({error})", "Repair that first") from error
    for lun in luns:
        raise TargetBusy(
            path,
            "it is the source of {name}".format(**lun),
            "End that drill first ('ansible-playbook idr.yml --tags teardown -e idr_end={drill}')".format(**lun),
        )


def _too_small(held: claim.Held, size: int) -> TargetTooSmall:
    return TargetTooSmall(
        held.path, f"it has {held.size} bytes and the volume has {size}", "Name a device of at least that size"
    )
