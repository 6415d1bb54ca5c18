# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module as Ansible runs it, what it refuses, and what an inventory implies."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.checks import known
from ansible_collections.openisb.backup.plugins.module_utils.checks.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.checks.defaults import default_checks
from ansible_collections.openisb.backup.plugins.module_utils.checks.places import Places
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import OptionError

Play = Callable[..., list[dict[str, Any]]]


def task(*checks: dict[str, Any], **options: Any) -> dict[str, Any]:
    return {"openisb.backup.recovery_check": {"checks": list(checks), **options}}


def only(result: dict[str, Any]) -> dict[str, Any]:
    """The result of the only check."""
    (told,) = result["checks"]
    return dict(told["check"])


@pytest.mark.slow
def test_it_fails_for_wrong_options_alone(play: Play, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here/a").write_text("a")
    mounts = {"/srv/m": str(tmp_path / "here")}
    good, bad, wrong, unknown, place, scratch = play(
        [
            task({"name": "files", "paths": ["/srv/m/a"]}, mounts=mounts, scratch=str(tmp_path / "new")),
            task({"name": "command", "argv": ["/bin/sh", "-c", "echo $0 no; exit 1"]}, context={"drill": "d"}),
            task({"name": "files", "path": "/srv/m/a"}),
            task({"name": "wish"}),
            task({"name": "files", "paths": ["/srv/m/a"]}, mounts={"/srv/m": "relative"}),
            task({"name": "files", "paths": ["/srv/m/a"]}, scratch="/dev/null/none"),
        ]
    )
    assert (good.get("failed", False), good["changed"], only(good)["ok"]) == (False, False, True)
    assert only(good)["files"][0]["path"] == "/srv/m/a"
    assert (bad.get("failed", False), only(bad)["ok"]) == (False, False)
    assert only(bad)["detail"] == "exit status 1: /bin/sh no"
    assert wrong["msg"].startswith("The options of the checks are wrong: check files has no option 'path'")
    assert unknown["msg"].endswith("there is no check 'wish': use one of command, files, filesystem, gtm, postgresql")
    assert place["msg"] == "'mounts' must map to absolute paths, not 'relative': correct it"
    assert "checks cannot be run with /dev/null/none as 'scratch'" in only(scratch)["detail"]
    assert not only(scratch)["ok"]
    assert all(result["failed"] for result in (wrong, unknown, place))


def test_several_run_in_order_and_each_has_its_own_result(play: Play, tmp_path: Path) -> None:
    """And when each has ended: a moment that their common end would hide."""
    bad = {"name": "command", "argv": ["/bin/sh", "-c", "exit 1"]}
    wait = {"name": "command", "argv": ["/usr/bin/sleep", "0.3"]}
    last = {"name": "command", "argv": ["/bin/echo", "one"]}
    told, refused = play([task(bad, wait, last, scratch=str(tmp_path)), task(last, {"name": "wish"})])
    assert [each["check"]["ok"] for each in told["checks"]] == [False, True, True]
    assert told["checks"][2]["check"]["detail"] == "one"
    first, second, third = (each["ago"] for each in told["checks"])
    assert first - second >= 0.3 and second > third >= 0
    assert refused["failed"] and "there is no check 'wish'" in refused["msg"]


@pytest.mark.root
def test_who_reads_the_copy(play: Play, tmp_path: Path) -> None:
    """The options of the module get to the check, and a text of the copy gets to the controller as a plain one."""
    image = tmp_path / "image"
    subprocess.run(["mkfs.ext4", "-q", "-L", "a\x1b[2J", image, "16M"], check=True)
    (tmp_path / "\x1b[2J").write_text("x")
    check = {"name": "filesystem", "device": str(image)}
    files = {"name": "files", "paths": ["/srv/m/*2J"]}
    good, root, told = play(
        [
            task(check, user="daemon", disposable=True),
            task(check, user="root"),
            task(files, mounts={"/srv/m": str(tmp_path)}),
        ]
    )
    assert only(good)["ok"], good
    assert only(root)["detail"].startswith("root has all privileges on this host")
    assert only(told)["files"][0]["path"] == "/srv/m/\\x1b[2J"


def test_check_mode_runs_nothing_and_passes_nothing(play: Play, tmp_path: Path) -> None:
    touch = {"name": "command", "argv": ["/bin/touch", str(tmp_path / "touched")]}
    good, wrong = play([task(touch), task({"name": "command"})], "--check")
    assert only(good)["ok"] is False
    assert only(good)["what"] == f"/bin/touch {tmp_path}/touched"
    assert only(good)["detail"] == "it was not run, because of check mode"
    assert not (tmp_path / "touched").exists()
    assert wrong["failed"]


WRONG = [
    ({}, "a check needs a 'name'"),
    ({"name": "files", "paths": []}, "'paths' must be a list with at least one item"),
    ({"name": "files", "paths": ["a"]}, "must be or contain an absolute path"),
    ({"name": "files", "paths": [3]}, "must be or contain an absolute path"),
    ({"name": "files", "paths": [{"path": "/a", "size": 3}]}, "has no key 'size'"),
    ({"name": "files", "paths": [{"path": "/a", "sha256": "12"}]}, "must be 64 hex digits"),
    ({"name": "files", "paths": [{"path": "/a", "min_size": "big"}]}, "must be a number of bytes"),
    ({"name": "files", "paths": [{"path": "/a", "newer_than": "yesterday"}]}, "must be a time such as"),
    ({"name": "filesystem", "type": "ext4"}, "either 'volume' or 'device'"),
    ({"name": "filesystem", "volume": "m", "device": "/dev/x"}, "either 'volume' or 'device'"),
    ({"name": "gtm", "gbldir": "/a"}, "needs the option 'gtm_dist'"),
    ({"name": "gtm", "gtm_dist": "/g"}, "either 'gbldir' or 'files'"),
    ({"name": "gtm", "gtm_dist": "/g", "files": ["a"]}, "must be absolute paths"),
    ({"name": "command", "argv": ["true"]}, "begins with the absolute path of a program"),
    ({"name": "command", "argv": ["/bin/true"], "timeout": 0}, "'timeout' must be more than 0 s"),
    ({"name": "postgresql", "data": "data"}, "must be an absolute path"),
]


@pytest.mark.parametrize(("description", "why"), WRONG)
def test_wrong_options(description: dict[str, Any], why: str) -> None:
    with pytest.raises(OptionError) as caught:
        known.build(description, Surroundings(Places({}), {}, {}))
    assert why in str(caught.value)


def test_what_is_wrong_is_told_of_all() -> None:
    right = {"name": "files", "paths": ["/srv/m/mumps.dat"]}
    assert known.problems_of([right]) == []
    first, second = known.problems_of([{"name": "gtm", "gtm_dist": "/opt/gtm"}, right, {"name": "oracle"}])
    assert first == "the description of check 1 is wrong: check gtm needs either 'gbldir' or 'files'"
    assert second.startswith("the description of check 3 is wrong: there is no check 'oracle'")


GTM = {"name": "gtm", "gtm_dist": "/usr/lib/gtm", "gbldir": "/srv/m/mumps.gld", "regions": ["*"], "timeout": 10}
VOLUMES = [{"name": "m", "serial": "0" * 16, "mount": "/srv/m"}, {"name": "raw", "serial": "1" * 16}]


def test_what_drivers_imply() -> None:
    filesystem = {"name": "filesystem", "mounts": ["/srv/m"]}
    expected = {"name": "gtm", "gtm_dist": "/usr/lib/gtm", "gbldir": "/srv/m/mumps.gld", "regions": ["*"]}
    assert default_checks([GTM, filesystem], VOLUMES) == [expected]
    variables = {**GTM, "environment": {"where": "/srv/m"}}
    assert default_checks([variables], VOLUMES) == [{**expected, "environment": {"where": "/srv/m"}}]
    elsewhere = default_checks([{**GTM, "gbldir": "/opt/mumps.gld"}], VOLUMES)
    assert elsewhere == [{"name": "gtm", "gtm_dist": "/usr/lib/gtm", "files": ["/srv/m/**/*.dat"]}]
    assert default_checks([{"name": "postgresql", "port": 5433}], VOLUMES) == [{"name": "postgresql"}]
    assert default_checks([filesystem, {"name": "mbf"}, {"name": "command"}], VOLUMES) == []
    assert default_checks([], []) == []


@pytest.mark.parametrize("drivers", [[GTM], [{**GTM, "gbldir": "/opt/x.gld"}], [{"name": "postgresql"}]])
def test_what_drivers_imply_is_a_check(drivers: list[dict[str, Any]]) -> None:
    for description in default_checks(drivers, VOLUMES):
        known.build(description, Surroundings(Places({}), {}, {}))


def test_the_filter(play: Play) -> None:
    (result,) = play(
        [{"ansible.builtin.debug": {"msg": "{{ drivers | openisb.backup.facts('idr_checks', volumes) }}"}}],
        "-e",
        '{"drivers": [{"name": "postgresql"}], "volumes": []}',
    )
    assert result["msg"] == [{"name": "postgresql"}]
