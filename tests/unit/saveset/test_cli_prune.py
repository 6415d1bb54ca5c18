# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""isb-saveset prune, pin, unpin and forget: what stays, what goes, and what is said of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import typing as t

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import lease
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.collect import Collector

from .conftest import KIB, MIB, Cli, Lab, MakeImage, noise

Row = list[str]


@pytest.fixture
def ids(lab: Lab, make_image: MakeImage) -> list[str]:
    """Three savesets of fs1, one of fs2, each with data of its own; the runs are called run-0 to run-2."""
    images = [make_image(f"i{number}", MIB, [(0, noise(300 * KIB, number))]) for number in range(4)]
    savesets = [lab.backup(path, run_id=f"run-{number}") for number, path in enumerate(images[:3])]
    return [saveset.id for saveset in [*savesets, lab.backup(images[3], volume="fs2/m", run_id="run-2")]]


def rows(out: str) -> list[Row]:
    """The cells of a table, up to the first empty line; the heading first."""
    return [re.split(r"  +", line) for line in out.partition("\n\n")[0].splitlines()]


def there(lab: Lab) -> list[str]:
    """The ids of the savesets that are there."""
    return [info.id for info in lab.open().savesets()]


def test_a_dry_run_tells_what_pruning_then_does(cli: Cli, lab: Lab, ids: list[str]) -> None:
    status, out, err = cli("prune", "--keep-last", "1", "--dry-run")
    assert (status, err) == (0, "") and there(lab) == ids
    heading, *told = rows(out)
    assert heading == ["VOLUME", "TIME (UTC)", "RUN", "VERDICT", "ID", "STAYS AS"]
    stays = ["last 1 of 1, latest application-consistent"]
    goes = ["nothing: would be forgotten"]
    assert [[row[0], row[2], row[4], row[5]] for row in told] == [
        ["fs1/m", "run-0", ids[0][:8], *goes],
        ["fs1/m", "run-1", ids[1][:8], *goes],
        ["fs1/m", "run-2", ids[2][:8], *stays],
        ["fs2/m", "run-2", ids[3][:8], *stays],
    ]
    assert re.search(r"^2 of 4 savesets would be forgotten\nThis would free .* KiB: 2 packs, 2 maps,", out, re.M)

    done = cli("prune", "--keep-last", "1")
    assert done.status == 0 and there(lab) == ids[2:]
    assert [row[:5] for row in rows(done.out)[1:]] == [row[:5] for row in told]
    assert rows(done.out)[1][5] == "nothing: forgotten"
    assert re.search(r"^2 of 4 savesets were forgotten\nThis freed .* KiB: 2 packs, 2 maps,", done.out, re.M)
    assert "0 of 2 savesets were forgotten\nThis freed 0 B:" in cli("prune", "--keep-last", "1").out
    assert cli("verify").status == 0


def test_prune_as_json(cli: Cli, lab: Lab, ids: list[str]) -> None:
    told = json.loads(cli("prune", "--keep-last", "1", "--json", "--dry-run", lab.path).out)
    done = json.loads(cli("prune", "--keep-last", "1", "--json").out)
    assert told.pop("dry_run") and not done.pop("dry_run")
    assert told.pop("seconds") >= 0 <= done.pop("seconds")
    assert told == done
    assert done["forgotten"] == ids[:2] and done["packs_deleted"] == 2 and done["bytes_freed"] > 600 * KIB
    assert done["waiting"] == [] and [item["keep"] for item in done["savesets"]] == [False, False, True, True]
    assert done["savesets"][2]["reasons"] == ["last 1 of 1", "latest application-consistent"]
    assert done["savesets"][2]["id"] == ids[2] and done["savesets"][2]["run_id"] == "run-2"


@pytest.mark.parametrize(
    ("options", "stay"),
    [
        (["--keep-hourly", "1"], [2, 3]),
        (["--keep-daily", "1", "--server", "fs2"], [0, 1, 2, 3]),
        (["--keep-weekly", "1", "--server", "fs1"], [2, 3]),
        (["--keep-monthly", "1", "--server", "fs1", "--server", "fs2"], [2, 3]),
        (["--keep-yearly", "1", "--keep-last", "2"], [1, 2, 3]),
        (["--keep-within", "1h"], [0, 1, 2, 3]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_every_rule_reaches_the_policy(cli: Cli, lab: Lab, ids: list[str], options: list[str], stay: list[int]) -> None:
    """The savesets are a minute apart, so one of each hour, day and so on is the newest one."""
    assert cli("prune", *options).status == 0
    assert there(lab) == [ids[number] for number in stay]


@pytest.mark.parametrize(("options", "stay"), [([], [0, 1]), (["--no-keep-consistent"], [1])])
def test_the_latest_consistent_one_stays_unless_told(
    cli: Cli, lab: Lab, make_image: MakeImage, options: list[str], stay: list[int]
) -> None:
    image = make_image("image", MIB, [(0, noise(100 * KIB))])
    found = [lab.backup(image, verdict=verdict).id for verdict in ("application-consistent", "crash-consistent")]
    assert cli("prune", "--keep-last", "1", *options).status == 0
    assert there(lab) == [found[number] for number in stay]


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        ([], 2, "it keeps nothing"),
        (["--keep-last", "-1"], 2, "not a valid number of savesets"),
        (["--keep-last", "many"], 2, "invalid int value"),
        (["--keep-within", "soon"], 2, "Write it like 14d"),
        (["--keep-last", "1", "--punch-percent", "101"], 2, "it is not from 0 to"),
        (
            ["--keep-last", "1", "--server", "fs9"],
            1,
            "server fs9: .* has no saveset of it. It has savesets of: fs1, fs2",
        ),
    ],
    ids=str,
)
def test_what_is_refused(cli: Cli, lab: Lab, ids: list[str], options: list[str], status: int, says: str) -> None:
    for more in ([], ["--dry-run"]):
        result = cli("prune", *options, *more)
        assert (result.status, result.out) == (status, "") and re.search(says, result.err)
    assert there(lab) == ids


def test_what_waits_is_told(cli: Cli, lab: Lab, ids: list[str]) -> None:
    with lab.open().reading(lease.SERVE):
        status, out, _err = cli("prune", "--keep-last", "1")
    assert status == 0 and there(lab) == ids[2:] and "This freed 0 B: 0 packs, 0 maps" in out
    assert re.search(r"^6..\.. KiB more wait for serve by process .* A later prune removes them$", out, re.M)
    assert "2 packs, 2 maps" in cli("prune", "--keep-last", "1").out


def test_an_export_keeps_what_it_reads(cli: Cli, lab: Lab, make_image: MakeImage) -> None:
    """It is slower than what it writes to, and its saveset is forgotten meanwhile."""
    image = make_image("large", 24 * MIB, [(0, noise(24 * MIB))])
    lab.backup(image, run_id="old")
    lab.backup(make_image("small", MIB, [(0, noise(MIB, 2))]))
    command = [sys.executable, "-I", str(lab.path / "isb-saveset.pyz"), "export", "fs1/m:old"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as export:
        assert export.stdout is not None
        begin = export.stdout.read(1)
        told = cli("prune", "--keep-last", "1")
        assert "1 of 2 savesets were forgotten" in told.out and "more wait for export by process" in told.out
        assert begin + export.stdout.read() == image.read_bytes()
    assert export.returncode == 0
    assert re.search(r"freed 2.\.. MiB: \d packs", cli("prune", "--keep-last", "1").out)


def test_an_empty_repository_has_nothing_to_prune(cli: Cli) -> None:
    status, out, err = cli("prune", "--keep-last", "1")
    assert (status, err) == (0, "isb-saveset: no saveset is in the repository\n")
    assert out.startswith("0 of 0 savesets were forgotten\n")


# -- pins


@pytest.mark.parametrize(
    ("locale", "shown"),
    [("ascii", (b"Zo\\xeb \\u2713", b"tr\\xe8s important")), ("iso-8859-1", (b"Zo\xeb \\u2713", b"tr\xe8s important"))],
)
def test_what_a_terminal_cannot_show_is_written_out(
    cli: Cli, lab: Lab, ids: list[str], locale: str, shown: tuple[bytes, bytes]
) -> None:
    assert cli("pin", "--run-id", "run-0", "--who", "Zoë ✓", "--why", "très important").status == 0
    environment = {**os.environ, "PYTHONIOENCODING": f"{locale}:strict"}
    for command in (["list"], ["prune", "--keep-last", "1"], ["show", "fs1/m:run-0"]):
        program = [sys.executable, str(lab.path / "isb-saveset.pyz"), *command]
        done = subprocess.run(program, env=environment, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, b"")
        assert all(each in done.stdout for each in shown)


def test_a_name_that_is_no_text_is_no_name_of_a_pin(cli: Cli, ids: list[str]) -> None:
    told = cli("pin", "--run-id", "run-0", "--who", "Zo\udceb", "--why", "x")
    assert (told.status, "Traceback" in told.err, "--who" in told.err) == (2, False, True)


def test_a_pinned_run_stays_until_it_is_unpinned(cli: Cli, lab: Lab, ids: list[str]) -> None:
    pinned = cli("pin", "--run-id", "run-0", "--who", "ada", "--why", "before the move")
    assert pinned.status == 0 and pinned.out.startswith("Pinned fs1/m of 2026-03-01 12:01:00 UTC (run run-0, ")
    why = f"by ada on {time.strftime('%Y-%m-%d', time.gmtime())}: before the move"
    heading, first, second, *_rest = rows(cli("list").out)
    assert (heading[-1], first[-1], second[-1]) == ("PINNED", why, ids[1][:8])
    assert [item["pinned"] for item in json.loads(cli("list", "--json").out)] == [why, None, None, None]
    assert json.loads(cli("show", "--json", "fs1/m:run-0").out)["pinned"] == why
    assert rows(cli("prune", "--keep-last", "1").out)[1][-1] == f"pinned {why}"
    assert there(lab) == [ids[0], *ids[2:]]

    unpinned = cli("unpin", f"fs1/m:{ids[0][:12]}")
    assert unpinned.status == 0 and unpinned.out.startswith("Unpinned fs1/m of ")
    again = cli("unpin", "--run-id", "run-0")
    assert again.status == 0 and again.out.startswith("Not pinned: fs1/m of ")
    assert "PINNED" not in cli("list").out
    cli("prune", "--keep-last", "1")
    assert there(lab) == ids[2:]


def test_savesets_of_a_run_by_server(cli: Cli, lab: Lab, ids: list[str]) -> None:
    pin = ["pin", "--run-id", "run-2", "--who", "ada", "--why"]
    assert cli(*pin, "x").status == 0 and set(lab.open().pins()) == set(ids[2:])
    assert cli(*pin, "y", "--server", "fs2").status == 0
    assert {key: pin.why for key, pin in lab.open().pins().items()} == {ids[2]: "x", ids[3]: "y"}
    assert cli("unpin", "--run-id", "run-2", "--server", "fs1").status == 0
    assert set(lab.open().pins()) == {ids[3]}


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["pin", "fs1/m"], 2, "--who, --why"),
        (["pin", "--who", "ada", "--why", "x"], 2, "neither or both of a saveset and a run"),
        (["pin", "fs1/m", "--run-id", "run-1", "--who", "ada", "--why", "x"], 2, "neither or both"),
        (["unpin", "fs1/m", "--server", "fs1"], 2, "it chooses savesets of a run"),
        (["pin", "fs1/m", "--who", "", "--why", "x"], 1, "it does not say who"),
        (["pin", "fs1/m:run-9", "--who", "ada", "--why", "x"], 1, "has no such saveset"),
        (["unpin", "--run-id", "run-0", "--server", "fs2"], 1, "run run-0 of fs2: .* has no such saveset"),
    ],
    ids=str,
)
def test_wrong_pins(cli: Cli, lab: Lab, ids: list[str], arguments: list[str], status: int, says: str) -> None:
    result = cli(*arguments)
    assert (result.status, result.out) == (status, "") and re.search(says, result.err)
    assert lab.open().pins() == {}


def test_a_damaged_pin_is_told_and_counts(cli: Cli, lab: Lab, ids: list[str]) -> None:
    cli("pin", "fs1/m:run-0", "--who", "ada", "--why", "x")
    (path,) = lab.files("pins")
    path.write_bytes(b"rubbish")
    assert rows(cli("list").out)[1][-1].startswith("(")
    assert cli("verify").status == 1
    assert "pinned (" in rows(cli("prune", "--keep-last", "1").out)[1][-1]
    assert ids[0] in there(lab)


# -- damage


def test_what_cannot_be_read_is_forgotten_by_its_id_and_no_other_way(cli: Cli, lab: Lab, ids: list[str]) -> None:
    (path,) = [path for path in lab.files("savesets") if path.name.endswith(ids[0])]
    path.write_bytes(path.read_bytes()[:-20])
    for command in (["prune", "--keep-last", "1"], ["prune", "--keep-last", "1", "--server", "fs1"]):
        result = cli(*command)
        assert (result.status, result.out) == (1, "") and "what its saveset uses is not known" in result.err
    pinned = cli("pin", "--run-id", "run-1", "--who", "ada", "--why", "x")
    assert pinned.status == 1 and ids[0] in pinned.err and pinned.out.startswith("Pinned fs1/m")
    assert there(lab) == ids[1:]

    for wrong in ([ids[0][:8]], ["f" * 32], [ids[0], ids[1]]):
        assert (cli("forget", *wrong).status, path.exists(), there(lab)) == (1, True, ids[1:])
    assert cli("forget", ids[0])[:2] == (0, f"Forgot saveset {ids[0]}\n")
    assert not path.exists()
    assert cli("unpin", "--run-id", "run-1").status == 0
    assert cli("prune", "--keep-last", "1").status == 0 and there(lab) == ids[2:]
    assert cli("verify").status == 0
    assert cli("forget").status == 2


def test_what_was_pinned_while_it_was_to_be_forgotten_is_told(
    cli: Cli, lab: Lab, ids: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pin comes after all was checked, and before the commit is removed."""
    forget = Collector.forget

    def pin_before(collector: Collector, name: str, root: t.Any) -> bool:
        if name.endswith(ids[0]):
            lab.open().pin(lab.open().find("fs1/m", saveset_id=ids[0]), "ada", "x")
        return forget(collector, name, root)

    monkeypatch.setattr(Collector, "forget", pin_before)
    status, out, err = cli("forget", *ids[:2])
    assert (status, out) == (1, f"Forgot saveset {ids[1]}\n")
    assert err == f"isb-saveset: saveset {ids[0]}: it was pinned in the meantime. It stays\n"
    assert there(lab) == [ids[0], *ids[2:]]
