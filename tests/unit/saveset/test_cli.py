# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The commands of isb-saveset, called in this process."""

from __future__ import annotations

import collections
import contextlib
import filecmp
import getpass
import json
import os
import pty
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import progress
from ansible_collections.openisb.backup.plugins.module_utils.saveset.cli import main, output
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.sealing import generate_escrow_pair

from .conftest import KIB, MIB, Cli, Lab, MakeImage, Result, noise, text


@pytest.fixture
def savesets(lab: Lab, mixed: Path, make_image: MakeImage) -> list[t.Any]:
    """Two savesets of fs1/m and one of fs2/m."""
    other = make_image("other", MIB, [(0, text(MIB, 7))])
    return [lab.backup(mixed), lab.backup(mixed), lab.backup(other, volume="fs2/m", run_id="run-2")]


def test_list(cli: Cli, savesets: list[t.Any]) -> None:
    status, out, err = cli("list")
    assert (status, err) == (0, "")
    rows = [re.split(r"  +", line) for line in out.splitlines()]
    assert rows[0] == ["VOLUME", "TIME (UTC)", "RUN", "VERDICT", "SIZE", "STORED", "ID"]
    assert [(row[0], row[1], row[2], row[6]) for row in rows[1:]] == [
        (saveset.volume, f"{saveset.time:%Y-%m-%d %H:%M:%S}", saveset.run_id, saveset.id[:8]) for saveset in savesets
    ]
    assert rows[1][4] == "6.0 MiB"


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (["--volume", "fs1/m"], [0, 1]),
        (["--run-id", "run-2"], [1, 2]),
        (["--run-id", "run-2", "--volume", "fs2/m"], [2]),
        (["--volume", "fs3/m"], []),
    ],
)
def test_list_filters_and_json(cli: Cli, savesets: list[t.Any], arguments: list[str], chosen: list[int]) -> None:
    result = cli("list", "--json", *arguments)
    listed = json.loads(result.out)
    assert [facts["id"] for facts in listed] == [savesets[number].id for number in chosen]
    for facts, number in zip(listed, chosen, strict=True):
        info = savesets[number].info
        assert facts["stats"] == info.stats.as_dict() and facts["size"] == info.size
        assert facts["time"] == info.time.isoformat()
    if not chosen:
        assert cli("list", *arguments).err == "isb-saveset: no saveset matches\n"


def test_a_damaged_commit_is_told_and_the_others_are_listed(cli: Cli, lab: Lab, savesets: list[t.Any]) -> None:
    damaged = lab.path / savesets[0].info.name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    status, out, err = cli("list")
    assert status == 1 and err.startswith(f"isb-saveset: {savesets[0].info.name}: ")
    assert savesets[0].id[:8] not in out and savesets[1].id[:8] in out


def test_show(cli: Cli, savesets: list[t.Any]) -> None:
    saveset = savesets[0]
    facts = json.loads(cli("show", f"fs1/m:{saveset.id[:10]}", "--json").out)
    assert (facts["id"], facts["digest"]) == (saveset.id, saveset.info.digest)
    shown = cli("show", "fs1/m:run-1").out
    assert re.search(rf"^id +{saveset.id}$", shown, re.MULTILINE)
    assert re.search(rf"^stats.bytes_size +{saveset.size} \(6.0 MiB\)$", shown, re.MULTILINE)


@pytest.mark.parametrize("name", ["fs1/m", "fs1/m:latest", "fs1/m:run-2", "fs1/m:ID"])
def test_naming_a_saveset(cli: Cli, savesets: list[t.Any], name: str) -> None:
    shown = cli("show", "--json", name.replace("ID", savesets[1].id))
    assert json.loads(shown.out)["id"] == savesets[1].id


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fs3/m", "volume fs3/m: .* has no such saveset. It has savesets of: fs1/m, fs2/m"),
        ("fs1/m:run-9", "run id run-9 of volume fs1/m: .*. See them with: list --volume fs1/m"),
        ("fs1/m:ffffffffff", "saveset id ffffffffff of volume fs1/m"),
        ("../m", "volume id '../m'"),
    ],
)
def test_a_saveset_that_is_not_there(cli: Cli, savesets: list[t.Any], name: str, message: str) -> None:
    status, out, err = cli("show", name)
    assert (status, out) == (1, "") and re.search(message, err) and "Traceback" not in err


def test_verify(cli: Cli, lab: Lab, savesets: list[t.Any]) -> None:
    for depth in ("structure", "stored", "full"):
        status, out, _err = cli("verify", "--depth", depth)
        assert status == 0 and f"3 savesets, depth {depth}: good" in out
    assert "2 savesets" in cli("verify", "--volume", "fs1/m").out
    assert "2 savesets" in cli("verify", "--run-id", "run-2").out
    assert "1 savesets" in cli("verify", "--saveset", "fs1/m:run-1").out
    assert json.loads(cli("verify", "--json", lab.path).out)["problems"] == []


@pytest.mark.parametrize("chosen", [["--volume", "fs3/m"], ["--run-id", "run-9"], ["--saveset", "fs3/m"]])
def test_verifying_nothing_is_no_success(cli: Cli, savesets: list[t.Any], chosen: list[str]) -> None:
    status, out, err = cli("verify", *chosen)
    assert (status, out) == (1, "") and "has no such saveset" in err


@pytest.mark.parametrize("chosen", [[], ["--volume", "fs1/m"], ["--run-id", "run-2"]])
def test_verify_tells_of_damaged_commits(cli: Cli, lab: Lab, savesets: list[t.Any], chosen: list[str]) -> None:
    damaged = lab.path / savesets[0].info.name
    damaged.write_bytes(damaged.read_bytes()[:-20])
    status, out, _err = cli("verify", *chosen)
    assert status == 1 and out.startswith(f"{savesets[0].info.name}: ")


def test_verify_names_damage_and_the_savesets_that_it_hurts(cli: Cli, lab: Lab, savesets: list[t.Any]) -> None:
    (first, *_rest) = lab.files("packs")
    data = bytearray(first.read_bytes())
    data[len(data) // 3] ^= 4
    first.write_bytes(data)
    name = str(first.relative_to(lab.path))
    status, out, _err = cli("verify")
    hurt = {match[1] for match in re.finditer(rf"^{name}: .*saveset ([0-9a-f]+) of", out, re.MULTILINE)}
    assert status == 1 and hurt and hurt < {saveset.id for saveset in savesets}
    problems = json.loads(cli("verify", "--json").out)["problems"]
    assert {problem["saveset"] for problem in problems} == hurt
    status, out, _err = cli("verify", "--without-key")
    assert status == 1 and out.startswith(f"{name}: its frame at offset ")


def test_verify_without_key_asks_for_none(cli: Cli, savesets: list[t.Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENISB_PASSPHRASE")
    assert cli("verify", "--without-key")[:2] == (0, "good: every stored byte is the one that was written\n")
    assert json.loads(cli("verify", "--without-key", "--json").out) == []
    assert cli("verify", "--without-key", "--volume", "fs1/m").status == 2


def test_verifying_by_age_and_in_parts(cli: Cli, savesets: list[t.Any]) -> None:
    status, out, _err = cli("verify", "--limit-bytes", "1K")
    share = re.search(r"^(\d+) % of .* are verified to this depth$", out, re.MULTILINE)
    assert status == 0 and share and 0 < int(share[1]) < 100
    first = json.loads(cli("verify", "--older-than", "28", "--limit-seconds", "60", "--json").out)
    assert first["bytes_verified"] == first["bytes_total"] > first["bytes"] > 0 and first["recorded"]
    status, out, err = cli("verify", "--older-than", "0.5", "--depth", "stored")
    assert (status, err) == (0, "") and "depth stored: good, 0 s" in out
    assert re.search(r"^100 % of .* within 0.5 days, longest ago on \d{4}-\d\d-\d\d .* UTC$", out, re.MULTILINE)
    assert json.loads(cli("verify", "--json").out)["bytes"] > first["bytes"]


def test_what_was_verified_but_could_not_be_written_down_is_told(
    cli: Cli, savesets: list[t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write-only key does not write down what it verified."""
    monkeypatch.setenv("OPENISB_NEW_PASSPHRASE", "writes only")
    assert cli("key", "add", "--write-only").status == 0
    monkeypatch.setenv("OPENISB_PASSPHRASE", "writes only")
    paced = cli("verify", "--depth", "stored", "--older-than", "1")
    assert paced.status == 0 and "could not be recorded in the repository" in paced.err
    assert cli("verify", "--depth", "stored").err == ""


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--older-than", "0"], "0 is not a number of days"),
        (["--older-than", "soon"], "soon is not a number of days"),
        (["--older-than", "1e9"], "1e9 is not a number of days"),
        (["--older-than", "nan"], "nan is not a number of days"),
        (["--limit-bytes", "1.5G"], "1.5G is not a size"),
        (["--limit-bytes", "0"], "0 is not a size"),
        (["--limit-seconds", "0"], "0 is less than 1"),
        (["--older-than", "1", "--without-key"], "it verifies the whole repository"),
        (["--limit-bytes", "1G", "--without-key"], "it verifies the whole repository"),
    ],
    ids=str,
)
def test_ages_and_limits_that_are_none(cli: Cli, options: list[str], says: str) -> None:
    status, out, err = cli("verify", *options)
    assert (status, out) == (2, "") and says in err


def test_restore(cli: Cli, savesets: list[t.Any], mixed: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    status, out, err = cli("restore", "fs1/m:run-1", target)
    (first, *_others) = [saveset for saveset in savesets if (saveset.volume, saveset.run_id) == ("fs1/m", "run-1")]
    named = f"fs1/m of 2026-03-01 12:01:00 UTC (run run-1, saveset {first.id}, application-consistent)"
    assert status == 0 and filecmp.cmp(mixed, target, shallow=False)
    sizes = r"6.0 MiB in \d+ s \(.*/s\), of which .* data, .* holes and zeros\n"
    assert re.match(rf"Restored {re.escape(named)} to {target}: {sizes}", out)
    assert f"isb-saveset: restoring {named} to {target}\n" in err


def test_restore_overwrites_only_when_told(cli: Cli, savesets: list[t.Any], mixed: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    precious = noise(7 * MIB)
    target.write_bytes(precious)
    status, out, err = cli("restore", "fs1/m", target)
    assert (status, out) == (1, "") and f"it holds {7 * MIB} bytes of data, which would be lost" in err
    assert f"name it by its identity: --overwrite {target}:{7 * MIB}\n" in err
    wrong = cli("restore", "fs1/m", target, "--overwrite", f"{target}:{6 * MIB}")
    assert wrong.status == 1 and f"'{target}:{6 * MIB}', which was named, is not it" in wrong.err
    assert target.read_bytes() == precious
    # What is restored is told in any case, and of a quiet restore nothing else.
    err = cli("restore", "fs1/m", target, "--overwrite", f"{target}:{7 * MIB}", "--quiet").err
    assert err.startswith("isb-saveset: restoring fs1/m of ") and err.count("\n") == 1
    size = mixed.stat().st_size
    assert target.read_bytes() == mixed.read_bytes() + precious[size:]


def test_restore_refuses_what_cannot_hold_it(cli: Cli, savesets: list[t.Any], tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.write_bytes(bytes(KIB))
    assert "it has 1024 bytes, but the volume needs" in cli("restore", "fs1/m", small).err
    assert small.read_bytes() == bytes(KIB)
    assert "neither a file nor a block device" in cli("restore", "fs1/m", "/dev/null").err
    assert cli("restore", "fs1/m", tmp_path / "no" / "folder").status == 1
    assert "it is an NBD export, and all that it holds would be lost" in cli("restore", "fs1/m", "nbd://[::1]:1/").err


@pytest.mark.root
def test_restore_to_a_block_device(cli: Cli, savesets: list[t.Any], mixed: Path, make_image: MakeImage) -> None:
    disk = make_image("disk", 8 * MIB, [(0, noise(8 * MIB))])
    before = disk.read_bytes()
    attach = ["losetup", "--find", "--show", str(disk)]
    device = subprocess.run(attach, check=True, capture_output=True, text=True).stdout.strip()
    try:
        refused = cli("restore", "fs1/m", device).err
        assert "it holds data of an unknown kind, which would be lost" in refused
        assert Path(device).read_bytes() == before
        (identity,) = re.findall(r"--overwrite (content:[0-9a-f]{16})\n", refused)
        assert cli("restore", "fs1/m", device, "--overwrite", identity).status == 0
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)
    assert disk.read_bytes() == mixed.read_bytes() + before[mixed.stat().st_size :]


def test_restore_of_a_damaged_saveset_fails(cli: Cli, lab: Lab, savesets: list[t.Any], tmp_path: Path) -> None:
    for pack in lab.files("packs"):
        data = bytearray(pack.read_bytes())
        data[len(data) // 3] ^= 4
        pack.write_bytes(data)
    status, out, err = cli("restore", "fs1/m", tmp_path / "target")
    assert (status, out) == (1, "") and "is incomplete" in err and "Traceback" not in err


def test_export(cli: Cli, lab: Lab, savesets: list[t.Any], mixed: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-I", str(lab.path / "isb-saveset.pyz"), "export", "fs1/m", "--workers", "3"]
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == mixed.read_bytes()
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=False)
    assert reader.stdout is not None and reader.stderr is not None
    reader.stdout.read(10)
    reader.stdout.close()
    named, said = reader.stderr.read().splitlines(keepends=True)
    assert named.startswith(b"isb-saveset: exporting fs1/m of ")
    assert said == (b"isb-saveset: standard output: its reader is gone. The output is incomplete\n")
    assert reader.wait() == 1


def test_export_refuses_a_terminal(cli: Cli, lab: Lab, savesets: list[t.Any]) -> None:
    master, terminal = pty.openpty()
    command = [sys.executable, "-I", str(lab.path / "isb-saveset.pyz"), "export", "fs1/m"]
    ended = subprocess.run(command, stdout=terminal, stderr=subprocess.PIPE, text=True, check=False)
    os.close(terminal)
    os.close(master)
    assert ended.returncode == 2 and "it is a terminal" in ended.stderr


# -- finding the repository, and secrets


def test_the_repository_by_option_argument_and_place(
    cli: Cli, lab: Lab, savesets: list[t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir("/")
    assert cli("list", lab.path).status == cli("list", "--repository", lab.path).status == 0
    for arguments in (["list"], ["list", lab.path, "--repository", lab.path], ["show"], ["dance"], ["list", "--dance"]):
        assert cli(*arguments).status == 2
    assert cli("list", "/nowhere").err.startswith("isb-saveset: /nowhere: it holds no repo.json. ")
    own = [sys.executable, "-I", str(lab.path / "isb-saveset.pyz"), "list"]
    assert "fs1/m" in subprocess.run(own, cwd="/", check=True, capture_output=True, text=True).stdout


def test_a_wrong_call_names_the_way_out(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert cli("list") == Result(
        2,
        "",
        "isb-saveset: the repository: none is named, and neither this program's folder nor the current folder is a "
        "repository. Name it with --repository FOLDER, or in OPENISB_REPOSITORY\n",
    )


def test_the_repository_by_the_environment(
    cli: Cli, lab: Lab, savesets: list[t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For a program that lies elsewhere; an option goes before it."""
    monkeypatch.chdir("/")
    monkeypatch.setenv("OPENISB_REPOSITORY", str(lab.path))
    assert "fs1/m" in cli("list").out
    assert cli("list", tmp_path).err.startswith(f"isb-saveset: {tmp_path}: it holds no repo.json. ")


def test_the_passphrase_from_a_file(
    cli: Cli, savesets: list[t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENISB_PASSPHRASE", "wrong")
    assert "the secret opens none of its key files" in cli("list").err
    path = tmp_path / "passphrase"
    for content in ("correct horse", "correct horse\n", "correct horse\r\nnotes\n"):
        path.write_bytes(content.encode())
        assert cli("list", "--passphrase-file", path).status == 0
    path.write_text("\n")
    assert cli("list", "--passphrase-file", path).status == 2
    assert cli("list", "--passphrase-file", tmp_path / "none").status == 2


def test_the_passphrase_by_prompt(cli: Cli, savesets: list[t.Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENISB_PASSPHRASE")
    answers = collections.deque(["mistyped", "correct horse"])
    prompts = []

    def typed(prompt: str) -> str:
        prompts.append(prompt)
        return answers.popleft()

    monkeypatch.setattr(getpass, "getpass", typed)
    status, out, err = cli("list")
    assert status == 0 and "fs1/m" in out and err.count("the secret opens none") == 1
    assert len(prompts) == 2 and prompts[0].startswith("Passphrase of /")
    answers.extend(["a", "b", "c", "correct horse"])
    assert cli("list").status == 1 and list(answers) == ["correct horse"]


def test_without_a_terminal_nothing_is_asked(lab: Lab) -> None:
    command = [sys.executable, "-I", str(lab.path / "isb-saveset.pyz"), "list"]
    ended = subprocess.run(
        command, env={}, stdin=subprocess.DEVNULL, start_new_session=True, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert ended.stderr == (
        f"isb-saveset: Passphrase of {lab.path}: there is no terminal to prompt on. Use --passphrase-file, or set "
        "OPENISB_PASSPHRASE\n"
    )


def test_secrets_cannot_be_given_on_the_command_line() -> None:
    def options(parser: t.Any) -> t.Iterator[t.Any]:
        for action in parser._actions:
            yield action
            for inner in (action.choices or {}).values() if isinstance(action.choices, dict) else ():
                yield from options(inner)

    named = {name for action in options(main.make_parser()) for name in action.option_strings}
    assert "--passphrase-file" in named and not {"--passphrase", "--password", "--new-passphrase"} & named


# -- keys


def test_the_key_command_and_the_secrets_that_it_makes(
    cli: Cli, lab: Lab, savesets: list[t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = json.loads(cli("key", "list", "--json").out)
    assert first["reads"] and first["method"] == "scrypt"
    private, public = generate_escrow_pair(b"of the key")
    (tmp_path / "private.pem").write_bytes(private)
    (tmp_path / "public.pem").write_bytes(public)
    assert cli("key", "add", "--escrow", tmp_path / "public.pem", "--label", "safe").status == 0
    monkeypatch.setenv("OPENISB_NEW_PASSPHRASE", "writes only")
    assert cli("key", "add", "--write-only", "--label", "backup1").status == 0
    monkeypatch.setenv("OPENISB_NEW_PASSPHRASE", "of the export")
    assert cli("key", "export", tmp_path / "exported.json").status == 0
    assert (tmp_path / "exported.json").stat().st_mode & 0o777 == 0o600
    assert "it exists already" in cli("key", "export", tmp_path / "exported.json").err
    (tmp_path / "sheet.txt").write_text(cli("key", "sheet").out)
    rows = [re.split(r"  +", line)[1:3] + [line.split()[-1]] for line in cli("key", "list").out.splitlines()[1:]]
    # The first one has no label, so its last word is the time; keys of one second stand in any order.
    labels = sorted([method, reads, "" if method == "scrypt" else last] for method, reads, last in rows)
    assert labels == [["scrypt", "yes", ""], ["writer", "no", "backup1"], ["x25519", "yes", "safe"]]

    monkeypatch.setenv("OPENISB_PASSPHRASE", "writes only")
    assert cli("list").status == 0 and cli("verify", "--depth", "stored").status == 0
    assert "write-only" in cli("restore", "fs1/m", tmp_path / "no").err
    assert cli("key", "sheet").status == 1

    monkeypatch.delenv("OPENISB_PASSPHRASE")
    monkeypatch.setenv("OPENISB_PRIVATE_KEY_PASSWORD", "of the key")
    assert cli("restore", "fs2/m", tmp_path / "a", "--private-key", tmp_path / "private.pem").status == 0
    assert cli("restore", "fs2/m", tmp_path / "b", "--recovery-sheet", tmp_path / "sheet.txt").status == 0
    for path in lab.files("keys"):
        path.unlink()
    monkeypatch.setenv("OPENISB_PASSPHRASE", "of the export")
    assert cli("restore", "fs2/m", tmp_path / "c", "--exported-key", tmp_path / "exported.json").status == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()

    monkeypatch.delenv("OPENISB_PASSPHRASE")
    monkeypatch.setenv("OPENISB_NEW_PASSPHRASE", "a new one")
    assert cli("key", "add", "--recovery-sheet", tmp_path / "sheet.txt").status == 0
    monkeypatch.setenv("OPENISB_PASSPHRASE", "a new one")
    assert cli("verify").status == 0


def test_changing_and_removing_keys(
    cli: Cli, savesets: list[t.Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = collections.deque(["one", "other", "second", "second"])
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: answers.popleft())
    assert cli("key", "change").status == 2  # typed two different ones
    assert cli("key", "change").status == 0
    assert cli("list").status == 1
    new = tmp_path / "second"
    new.write_text("second\n")
    (info,) = json.loads(cli("key", "list", "--json", "--passphrase-file", new).out)
    refused = cli("key", "remove", info["id"], "--passphrase-file", new)
    assert refused.status == 1 and "no other key file gives the master key" in refused.err
    third = tmp_path / "third"
    third.write_text("third\n")
    assert cli("key", "add", "--new-passphrase-file", third, "--passphrase-file", new).status == 0
    assert cli("key", "remove", info["id"], "--passphrase-file", third).status == 0
    assert (cli("list", "--passphrase-file", new).status, cli("list", "--passphrase-file", third).status) == (1, 0)


# -- help and progress


def test_every_command_has_help(cli: Cli) -> None:
    commands = ["list", "show", "verify", "restore", "export", "serve", "prune", "pin", "unpin", "forget", "key"]
    overview = cli("--help").out
    for command in commands:
        assert re.search(rf"^    {command} ", overview, re.MULTILINE)
        status, out, _err = cli(command, "--help")
        assert status == 0 and "--passphrase-file" in out + cli("key", "list", "--help").out


def test_progress_tells_rate_and_time_left() -> None:
    moment = progress.Progress(bytes_total=10 << 30, bytes_done=4 << 30, elapsed_s=60.0)
    assert output.progress_text(moment) == " 40.0 %  4.0 GiB of 10.0 GiB  68.3 MiB/s  1 min 30 s left"
    assert output.progress_text(progress.Progress()) == "100.0 %  0 B of 0 B  0 B/s"


def _line(terminal: int) -> str:
    """What was written to a terminal, up to the end of a line."""
    told = b""
    while not told.endswith(b"\n"):
        told += os.read(terminal, 1000)
    return told.decode()


def test_progress_on_a_terminal_is_one_line() -> None:
    master, terminal = pty.openpty()
    with contextlib.closing(os.fdopen(terminal, "w")) as stream:
        with output.Meter(False, stream) as meter:
            meter(progress.Progress(bytes_total=2000, bytes_done=1000, elapsed_s=1.0))
            meter(progress.Progress(bytes_total=2000, bytes_done=2000, elapsed_s=2.0))
        told = _line(master)
        with output.Meter(True, stream) as meter:
            meter(progress.Progress(bytes_total=2000, bytes_done=1000, elapsed_s=1.0))
        print("end", file=stream, flush=True)
        assert _line(master) == "end\r\n"
    os.close(master)
    assert re.fullmatch(r"\r 50.0 %  1000 B of 2.0 KiB  1000 B/s  1 s left\r100.0 %  2.0 KiB of 2.0 KiB .*\r\n", told)


@pytest.mark.parametrize(
    ("count", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (5 << 42, "20.0 TiB")]
)
def test_sizes(count: int, shown: str) -> None:
    assert output.size_text(count) == shown


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (200, "3 min 20 s"), (18720, "5 h 12 min")])
def test_durations(seconds: float, shown: str) -> None:
    assert output.duration_text(seconds) == shown
