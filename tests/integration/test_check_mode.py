# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every playbook in check mode: it says what it would do, ends well, and has done nothing."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from typing import Any

import pytest
from lab import Lab

pytestmark = [pytest.mark.lab, pytest.mark.root]

RUN = "find /run/openisb -type f -not -path '*/jobs/*' | sort"
TO_FOLDER = ["-e", "restore_server=fs1", "-e", "restore_folder=/var/tmp/only-in-check-mode"]
TO_DR_HOST = ["-e", "restore_server=fs1", "-e", "restore_volume=m", "-e", "restore_host=dr1"]
PLAYBOOKS = [
    *("setup.yml", "preflight.yml", "isb.yml", "catalog.yml", "verify.yml", "prune.yml", "adopt.yml", "recover.yml"),
    *("idr.yml", "idr_fresh.yml", "drill.yml"),
]


def state(lab: Lab) -> dict[str, Any]:
    """All that a run, a restore or a drill would change."""
    repository = lab.on("backup1", "cd /var/lib/openisb && find repository -type f -printf '%P %s %T@\\n' | sort")
    return {
        "journal": lab.journal(),
        "drills": lab.drills(),
        "repository": hashlib.sha256(repository.encode()).hexdigest(),
        "snapshots": lab.on("storage1", "find /srv -maxdepth 4 | sort"),
        # What a job has told of its progress stays for a while, that of a verification in check mode, too.
        "run": {host: lab.on(host, RUN) for host in ("fs1", "dr1", "backup1")},
    }


@pytest.fixture(scope="module", autouse=True)
def run(lab: Lab) -> None:
    """There is a run to restore from; and what is looked at does change with a run."""
    before = state(lab)
    status, output = lab.play("isb.yml")
    assert status == 0, output
    after = state(lab)
    assert all(before[key] != after[key] for key in ("journal", "repository", "snapshots"))


@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_a_playbook(lab: Lab, playbook: str) -> None:
    nothing_is_done(lab, lambda: lab.play(playbook, "--check"))


@pytest.mark.parametrize("options", [TO_FOLDER, [*TO_DR_HOST, "-e", "restore_target=/srv/only-in-check-mode.img"]])
def test_a_restore(lab: Lab, options: list[str]) -> None:
    output = nothing_is_done(lab, lambda: lab.play("restore.yml", *options, "--check"))
    assert re.search(r"Would restore fs1/m of \S+, run isb-\S+, saveset [0-9a-f]{32} ", " ".join(output.split()))
    for host in ("backup1", "dr1"):
        lab.on(host, "test ! -e /var/tmp/only-in-check-mode && test ! -e /srv/only-in-check-mode.img")


def nothing_is_done(lab: Lab, play: Callable[[], tuple[int, str]]) -> str:
    before = state(lab)
    status, output = play()
    assert status == 0, output
    assert state(lab) == before
    return output
