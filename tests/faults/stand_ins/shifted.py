# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program from its input with a wall clock that is ahead by what the file says at each look: seconds.

Hosts of the lab share the kernel's clock, so it is shifted where the program reads it. Deadlines go by CLOCK_BOOTTIME,
which nobody can set, and stay as they are.
"""

import sys
import time

OFFSET = "/run/faults/clock"
real = time.time


def shifted():
    """Seconds since 1970, and what is said on top."""
    try:
        with open(OFFSET, encoding="ascii") as stream:
            return real() + float(stream.read())
    except OSError:
        return real()


time.time = shifted
exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})
