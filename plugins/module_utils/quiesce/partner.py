# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder's partner: a second process that waits until the holder dies or hangs, and then thaws in its place.

The holder reports its steps as ``watch`` describes. A holder counts as hung if it has not started to thaw when its time
to live is over, or if it falls silent during the thaw. Then the partner kills it, ends what it left running, becomes
the holder itself, thaws what the record says may be frozen, and responds at the socket that the hold was broken. If the
holder dies when nothing is frozen any more, its record stays.
"""

from __future__ import annotations

import os
import signal

from . import daemon, records, takeover, watch
from .guard import Guard
from .hold import BY_PARTNER
from .server import Server

DIED = "the holder died or hung before it thawed, and its partner thawed in its place"

PATIENCE = watch.Patience(late=0.5, silence=3.0)


def run(reader: int, run_dir: str, run_id: str, holder: int, hold_ttl: float, guard: Guard) -> None:
    """The main function of the partner of the holder with process id ``holder``. Returns when nothing is left to do."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon.ignore(number)  # the holder thaws on these; the partner acts only after it
    daemon.detach([reader, guard.writer])
    protection = daemon.protect()
    if not watch.lost(reader, hold_ttl, PATIENCE):
        return
    guard.teller.tell(watch.THAWING)  # before it does, so that the guard does not take over
    takeover.end_session(holder)
    record = records.read(run_dir, run_id)

    def connect(server: Server) -> None:
        server.guard, server.on_state = guard, guard.teller.follow

    if record is not None:
        takeover.take_over(run_dir, record, protection, (BY_PARTNER, DIED), connect)
    guard.dismiss()
