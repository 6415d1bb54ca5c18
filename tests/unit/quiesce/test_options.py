# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a driver's options may be, and what is said of wrong ones."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import OptionError
from ansible_collections.openisb.backup.plugins.module_utils.quiesce import drivers


def test_defaults_and_types() -> None:
    filesystem, gtm = drivers.build(
        [
            {"name": "filesystem", "mounts": "/a, /b/", "timeout": "2.5"},
            {"name": "gtm", "gtm_dist": "/opt/gtm", "gbldir": "/m.gld", "environment": {"gtm_tmp": "/t"}},
        ]
    )
    assert (filesystem.values["mounts"], filesystem.timeout) == (["/a", "/b/"], 2.5)
    assert (gtm.values["regions"], gtm.timeout, gtm.paths()["GT.M's temporary files"]) == (["*"], 10.0, "/t")


def test_defaults_are_not_shared() -> None:
    first, second = (drivers.build([{"name": "gtm", "gtm_dist": "/g", "gbldir": "/m"}])[0] for _time in "ab")
    first.values["regions"].append("x")
    assert second.values["regions"] == ["*"]


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({}, "a driver needs a 'name': one of command, filesystem, gtm, iris, mariadb, mbf, postgresql"),
        ({"name": "melt"}, "there is no driver 'melt': use one of command, filesystem"),
        ({"name": "filesystem"}, "driver filesystem needs the option 'mounts'"),
        ({"name": "filesystem", "mounts": []}, "'mounts' must be a list of texts with at least one item"),
        ({"name": "filesystem", "mounts": [["/a"]]}, "'mounts' must be a list of texts"),
        ({"name": "filesystem", "mounts": ["/a"], "path": "/a"}, "has no option 'path': use one of mounts, timeout"),
        ({"name": "filesystem", "mounts": ["/a"], "timeout": "soon"}, "'timeout' must be a number, not 'soon'"),
        ({"name": "filesystem", "mounts": ["/a"], "timeout": 0}, "'timeout' must be more than 0 s"),
        ({"name": "filesystem", "mounts": ["/a"], "timeout": True}, "'timeout' must be a number"),
        ({"name": "gtm", "gtm_dist": "gtm", "gbldir": "/m"}, "'gtm_dist' must be an absolute path, not 'gtm'"),
        ({"name": "gtm", "gtm_dist": "/g", "gbldir": "/m", "environment": "a=b"}, "must be a dictionary"),
        ({"name": "command", "thaw": ["/t"]}, "driver command needs the option 'freeze'"),
        ({"name": "command", "freeze": "/f, now", "thaw": ["/t"]}, "'freeze' must be a list of texts that begins with"),
        ({"name": "command", "freeze": ["f"], "thaw": ["/t"]}, "begins with the absolute path of a program, not ['f']"),
        ({"name": "command", "freeze": ["/f"], "thaw": []}, "'thaw' must be a list of texts that begins with"),
        (
            {"name": "command", "freeze": ["/f"], "thaw": ["/t"], "freeze_statuses": [0, 256]},
            "'freeze_statuses' must be a list of exit statuses, from 0 to 255",
        ),
        ({"name": "command", "freeze": ["/f"], "thaw": ["/t"], "thaw_statuses": ["ok"]}, "list of exit statuses"),
        ({"name": "iris"}, "driver iris needs the option 'instance'"),
        ({"name": "mariadb", "password": "x"}, "has no option 'password': use one of client, defaults_file, socket"),
        ({"name": "postgresql", "password": "x"}, "driver postgresql has no option 'password': use one of"),
        ({"name": "postgresql", "port": "five"}, "'port' must be a number, not 'five'"),
    ],
)
def test_wrong_options_are_named(description: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError) as caught:
        drivers.build([description])
    assert message in str(caught.value)


def test_statuses_may_be_texts() -> None:
    description = {"name": "command", "freeze": ["/f", 1], "thaw": ["/t"], "freeze_statuses": "0, 10"}
    values = drivers.build([description])[0].values
    assert (values["freeze"], values["freeze_statuses"], values["thaw_statuses"]) == (["/f", "1"], [0, 10], [0])


def test_no_driver_is_no_hold() -> None:
    with pytest.raises(OptionError, match="no driver given"):
        drivers.build([])
