# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The holder's partner: a second process that does nothing until the holder dies or hangs, and then thaws in its place.

It is told what the holder does, as ``watch`` describes. A holder that has not begun to thaw when its time to live is
over hangs, and so does one that has fallen silent while it thaws: it is killed. Then the partner ends what the holder
left running, becomes the holder itself, thaws what is on record as possibly frozen, and answers at the socket that the
hold was broken. A holder that dies when nothing is frozen any more leaves its record.
"""

from __future__ import annotations

import os
import signal

from . import daemon, records, takeover, watch
from .guard import Guard
from .hold import BY_PARTNER
from .server import Server

DIED = "the holder died or hung before it had thawed, and its partner thawed in its place"

PATIENCE = watch.Patience(late=0.5, silence=3.0)


def run(reader: int, run_dir: str, run_id: str, holder: int, hold_ttl: float, guard: Guard) -> None:
    """The partner's whole life, beside the holder with process id ``holder``. Returns when there is no more to do."""
    os.setsid()
    for number in (signal.SIGTERM, signal.SIGINT):
        daemon.ignore(number)  # the holder thaws on these; the partner's turn comes only after it
    daemon.detach([reader, guard.writer])
    protection = daemon.protect()
    if not watch.lost(reader, hold_ttl, PATIENCE):
        return
    guard.teller.tell(watch.THAWING)  # it is about to: else the guard's turn could come
    takeover.end_session(holder)
    record = records.read(run_dir, run_id)

    def connect(server: Server) -> None:
        server.guard, server.on_state = guard, guard.teller.follow

    if record is not None:
        takeover.take_over(run_dir, record, protection, (BY_PARTNER, DIED), connect)
    guard.dismiss()
