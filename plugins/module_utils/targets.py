# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What restores may write to on this host: nothing that is in use, and nothing with content that nobody has given up.

The engine says what is on a target and holds it (saveset.claim); here it is weighed with what is on record.
"""

from __future__ import annotations

import os

from ansible_collections.openisb.backup.plugins.module_utils.idr.luns_errors import LunError
from ansible_collections.openisb.backup.plugins.module_utils.idr.luns_records import FOLDER, Records
from ansible_collections.openisb.backup.plugins.module_utils.saveset import claim
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import (
    TargetBusy,
    TargetError,
    TargetTooSmall,
)
from ansible_collections.openisb.backup.plugins.module_utils.standbys import RESTORED, STANDBY, Standby

#: What an operator writes before the identity of a target whose content may go.
OPTION = "-e restore_overwrite="

#: What a target is for: a standby; a disk or file that stays; a file of a drill, of which nothing is put on record.
PURPOSES = (STANDBY, RESTORED, "once")

ARGUMENTS = {
    "overwrite": {"type": "list", "elements": "str", "default": []},
    "state_dir": {"type": "path", "default": "/var/lib/openisb"},
}


class Target:
    """The target ``path`` of a volume's restore: ``size`` is the volume's, ``overwrite`` the identities given up."""

    def __init__(self, path, volume, size, overwrite=(), state_dir="/var/lib/openisb", run_dir="/run/openisb"):
        self.path = os.path.realpath(path)
        self.volume = volume
        self.size = size
        self.overwrite = overwrite
        self.run_dir = run_dir
        self.standby = Standby(state_dir, path)

    def check(self):
        """Raise TargetError where it cannot be restored to. Nothing is changed, nor held afterwards."""
        if os.path.lexists(self.path):
            self.take().close()
            return
        folder = os.path.dirname(self.path)
        if not os.path.isdir(folder):
            raise TargetError(self.path, f"there is no folder {folder}", "Make it, or name another file")

    def take(self):
        """Hold it, a missing file being made: a claim.Held of what may be written over. Raises TargetError."""
        _check_drills(self.path, self.run_dir)
        held = claim.hold(self.path, create=True)
        try:
            if held.is_block and held.size < self.size:
                raise _too_small(held, self.size)
            claim.allow(held, self.overwrite, lambda own: self.standby.vouches(own, self.volume), OPTION)
        except BaseException:
            held.close()
            raise
        return held

    def begin(self, held, purpose, keep):
        """Put on record that it is being written, and make a file as long as the volume, empty unless ``keep``.

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

    def end(self, purpose, saveset=None):
        """Put on record what it holds now, while it is held: a saveset (run_id, id); None where it is incomplete."""
        if purpose == "once":
            return
        if saveset is None:
            self.standby.begin(self.volume, purpose)
        else:
            self.standby.remember(self.volume, *saveset, purpose)


def _check_drills(path, run_dir):
    """Refuse what a drill reads: it would change under those who work with the drill's LUN."""
    try:
        luns = [lun for lun in Records(os.path.join(run_dir, FOLDER)).all() if os.path.realpath(lun["source"]) == path]
    except LunError as error:
        raise TargetError(path, f"it cannot be told whether a drill uses it ({error})", "Repair that first") from error
    for lun in luns:
        raise TargetBusy(
            path,
            "it is what {name} is made from".format(**lun),
            "End that drill first ('ansible-playbook idr.yml --tags teardown -e idr_end={drill}')".format(**lun),
        )


def _too_small(held, size):
    return TargetTooSmall(
        held.path, f"it has {held.size} bytes and the volume has {size}", "Name a device of at least that size"
    )
