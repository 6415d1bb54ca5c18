# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a process has started goes with it, in whatever session it is."""

from __future__ import annotations

import subprocess
from pathlib import Path

from families import children, family, kill_family


def test_a_family_is_killed_whole():
    with subprocess.Popen(["sh", "-c", "setsid sleep 60 & echo; wait"], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        (child,) = children(process.pid)
        assert family(process.pid) == [process.pid, child]
        kill_family(process.pid)
        assert process.stdout.read() == b""  # the end of the file: nobody is left who could write
    assert not Path(f"/proc/{process.pid}").exists()
    assert children(process.pid) == []
