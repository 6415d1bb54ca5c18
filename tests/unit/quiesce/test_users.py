# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Command lines and environments of other users."""

from __future__ import annotations

import getpass
import os

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.commands import run
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import DriverError
from ansible_collections.openisb.backup.plugins.module_utils.host.users import as_user, environment_of


def test_nothing_changes_for_the_same_user() -> None:
    assert as_user(["id"], None) == ["id"]
    assert as_user(["id"], getpass.getuser()) == ["id"]


@pytest.mark.root
def test_a_program_runs_as_the_other_user_with_its_groups() -> None:
    finished = run(as_user(["id"], "nobody"), environment_of("nobody"), 5)
    assert finished.output.startswith("uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)")
    assert run(as_user(["printenv", "LOGNAME"], "nobody"), environment_of("nobody"), 5).output == "nobody"


def test_only_root_can_run_programs_as_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    with pytest.raises(DriverError, match="id cannot be run as nobody: only root can"):
        as_user(["id"], "nobody")


def test_an_unknown_user_is_named() -> None:
    with pytest.raises(DriverError, match="there is no user nobody-here on this server: correct the driver's 'user'"):
        as_user(["id"], "nobody-here")
