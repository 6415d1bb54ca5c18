# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Exported keys and recovery sheets: they open a repository without keys, and typos are named."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.access import recovery
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.version import VERSION
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from .conftest import Lab

CHEAP = ScryptCost(n=16)
ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
MASTERS = st.binary(min_size=32, max_size=32)
GROUP = st.integers(0, recovery.GROUPS - 1)
PLACE = st.integers(0, recovery.GROUP_CHARACTERS - 1)


def lose_keys(lab: Lab) -> None:
    """Lose the folder with the key files."""
    shutil.rmtree(lab.path / "keys")
    with pytest.raises(errors.Damaged, match="no key file"):
        lab.open()


# -- export


def test_an_exported_key_opens_a_repository_without_keys(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    exported = lab.open().key_files.export(b"of the export", label="2026", cost=CHEAP)
    fields = json.loads(exported)
    assert fields["repository"] == lab.open().id and fields["location"] == str(lab.path)
    assert len(lab.files("keys")) == 1, "an export is no key of the repository"
    lose_keys(lab)
    repo = repository.Repository.open(lab.store(), Secret(b"of the export", exported=exported))
    assert lab.restore(repo.find("fs1/m")).read_bytes() == mixed.read_bytes()
    info = repo.key_files.add_exported(exported)
    assert (info.label, info.method) == ("2026", "scrypt")
    assert not repository.Repository.open(lab.store(), Secret(b"of the export")).write_only
    assert repo.verify().ok
    with pytest.raises(errors.StoreError):
        repo.key_files.add_exported(exported)


def test_a_copy_of_the_export_is_a_key_file(lab: Lab) -> None:
    exported = lab.open().key_files.export(b"of the export", cost=CHEAP)
    lose_keys(lab)
    (lab.path / "keys").mkdir()
    (lab.path / "keys" / f"{json.loads(exported)['id']}.json").write_bytes(exported)
    assert repository.Repository.open(lab.store(), Secret(b"of the export")).verify().ok


def test_exports_that_do_not_open(lab: Lab, tmp_path: Path) -> None:
    exported = lab.open().key_files.export(b"of the export", cost=CHEAP)
    (tmp_path / "other").mkdir()
    foreign = Lab(tmp_path / "other").open().key_files.export(b"of the export", cost=CHEAP)
    repo = lab.open()
    lose_keys(lab)
    for secret, error, says in (
        (Secret(b"wrong", exported=exported), errors.WrongSecret, "opens none"),
        (Secret(exported=exported), errors.WrongSecret, "is encrypted"),
        (Secret(b"of the export", exported=foreign), errors.Damaged, "another repository"),
        (Secret(b"of the export", exported=exported[:-9]), errors.Damaged, "the exported key"),
        (Secret(b"of the export", exported=b"\xff"), errors.Damaged, "the exported key"),
    ):
        with pytest.raises(error, match=says):
            repository.Repository.open(lab.store(), secret)
    for data in (foreign, exported[:-9], exported.replace(b'"label":""', b'"label":"x"')):
        with pytest.raises(errors.Damaged):
            repo.key_files.add_exported(data)
    assert lab.files("keys") == []


# -- the sheet


def test_a_sheet_opens_a_repository_without_keys(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    sheet = lab.open().key_files.recovery_sheet()
    assert lab.open().id in sheet and str(lab.path) in re.sub(r"\n {13}", "", sheet) and sheet.isascii()
    assert max(map(len, sheet.splitlines())) <= 80
    lose_keys(lab)
    secret = Secret(master=recovery.read_sheet(sheet))
    repo = repository.Repository.open(lab.store(), secret)
    assert lab.restore(repo.find("fs1/m")).read_bytes() == mixed.read_bytes()
    assert [problem["object"] for problem in repo.verify().problems] == ["keys"]
    repo.key_files.add_passphrase(b"new", cost=CHEAP)
    assert repository.Repository.open(lab.store(), Secret(b"new")).verify().ok


def run_told(lab: Lab, folder: Path, command: str, **environment: str) -> str:
    """Run a command of isb-saveset as a text tells it; what it printed."""
    arguments = [sys.executable, "-I", str(lab.path / "isb-saveset.pyz"), *shlex.split(command)]
    done = subprocess.run(arguments, cwd=folder, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    return done.stdout


def test_the_steps_on_the_sheet_work(lab: Lab, tmp_path: Path) -> None:
    """What a person is told to type is run, with the repository alone; and what is run is what the sheet names."""
    sheet = lab.open().key_files.recovery_sheet()
    program = hashlib.sha256((lab.path / "isb-saveset.pyz").read_bytes()).hexdigest()
    assert re.findall(r"^    ([0-9a-f]{64})$", sheet, re.MULTILINE) == [program]
    assert f"isb-saveset.pyz {VERSION}. " in sheet and sheet.index("sha256sum ") < sheet.index("/opt/isb/bin/python")
    lose_keys(lab)
    groups = re.findall(r"\d: [0-9A-Z]{4}-[0-9A-Z]{4}", sheet)
    (tmp_path / "sheet.txt").write_text("\n".join(groups).lower())
    (command,) = re.findall(r"python /opt/isb-saveset.pyz (key .*)", re.sub(r" \\\n +", " ", sheet))
    told = command.replace(" /repo ", f" {lab.path} ")
    run_told(lab, tmp_path, told, OPENISB_NEW_PASSPHRASE="a new passphrase")
    assert not repository.Repository.open(lab.store(), Secret(b"a new passphrase")).write_only


def test_the_commands_of_the_manual_work(lab: Lab, tmp_path: Path, project_root: Path) -> None:
    """What docs/keys.md tells for exporting and printing."""
    commands = re.findall(r"^isb (key \S+ ?\S*)", (project_root / "docs" / "keys.md").read_text(), re.MULTILINE)
    secrets = {"OPENISB_PASSPHRASE": "correct horse", "OPENISB_NEW_PASSPHRASE": "a passphrase of its own"}
    sheet, _told = [run_told(lab, tmp_path, command.rstrip("| "), **secrets) for command in commands]
    exported = (tmp_path / "exported-key.json").read_bytes()
    lose_keys(lab)
    for secret in (
        Secret(master=recovery.read_sheet(sheet)),
        Secret(b"a passphrase of its own", exported=exported),
    ):
        assert not repository.Repository.open(lab.store(), secret).write_only


def test_the_groups_by_the_document() -> None:
    """docs/saveset-format.md is enough to read a sheet without the engine."""
    master = bytes(range(100, 132))
    bits = 0
    for number, group in enumerate(recovery.encode_groups(master), 1):
        value, rest = divmod(sum(ALPHABET.index(digit) * 32**place for place, digit in enumerate(group[::-1])), 1021)
        assert rest == number
        bits = bits * 2**30 + value
    digest = blake3(b"openisb saveset 1 recovery" + master).digest()
    assert bits == int.from_bytes(master + digest, "big") >> 256 - 14


def test_a_sheet_of_another_repository(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    master = recovery.read_sheet(Lab(tmp_path / "other").open().key_files.recovery_sheet())
    with pytest.raises(errors.WrongSecret, match="not this repository's"):
        repository.Repository.open(lab.store(), Secret(master=master))


def test_long_locations_are_wrapped() -> None:
    sheet = recovery.write_sheet(bytes(32), "00" * 16, "/srv/" + "a b/" * 60, "2026-03-01", "0" * 64)
    assert max(map(len, sheet.splitlines())) <= 80
    assert recovery.read_sheet(sheet) == bytes(32)


Form = t.Callable[[list[str]], str]
FORMS: list[Form] = [
    " ".join,
    lambda groups: "\n".join(group.lower() for group in groups),
    lambda groups: "\r\n".join(f"{group[:4]}-{group[4:]}" for group in groups),
    lambda groups: "\n".join(f" {number}: {group}" for number, group in enumerate(groups, 1)),
    lambda groups: "  ".join(f"{number}.{group}" for number, group in reversed(list(enumerate(groups, 1)))),
    lambda groups: " ".join(groups).replace("0", "O").replace("1", "l"),
    lambda groups: " ".join(groups).replace("1", "i").replace("0", "o"),
]


@given(MASTERS, st.sampled_from(FORMS))
def test_whatever_a_person_types(master: bytes, form: Form) -> None:
    assert recovery.read_sheet(form(recovery.encode_groups(master))) == master


@given(MASTERS)
def test_the_whole_sheet_can_be_read(master: bytes) -> None:
    sheet = recovery.write_sheet(master, "ab" * 16, "/srv/1: x/2: y", "2026-03-01", "1." * 32)
    assert recovery.read_sheet(sheet) == master


@given(MASTERS, GROUP, PLACE, st.sampled_from(ALPHABET))
def test_every_wrong_character_names_its_group(master: bytes, group: int, place: int, character: str) -> None:
    groups = recovery.encode_groups(master)
    good = groups[group]
    groups[group] = good[:place] + character + good[place + 1 :]
    if groups[group] == good:
        assert recovery.decode_groups(groups) == master
        return
    with pytest.raises(errors.InvalidValue, match=f"recovery key: group {group + 1} is mistyped") as caught:
        recovery.decode_groups(groups)
    assert caught.value.cause.count("mistyped") == 1


@given(MASTERS, GROUP, PLACE, PLACE)
def test_every_exchange_in_a_group_is_named(master: bytes, group: int, one: int, other: int) -> None:
    groups = recovery.encode_groups(master)
    letters = list(groups[group])
    letters[one], letters[other] = letters[other], letters[one]
    changed = "".join(letters)
    if changed == groups[group]:
        return
    groups[group] = changed
    with pytest.raises(errors.InvalidValue, match=f"recovery key: group {group + 1} is mistyped"):
        recovery.decode_groups(groups)


@given(MASTERS, GROUP, GROUP)
def test_groups_in_the_wrong_order_are_named(master: bytes, one: int, other: int) -> None:
    groups = recovery.encode_groups(master)
    groups[one], groups[other] = groups[other], groups[one]
    if one == other:
        assert recovery.decode_groups(groups) == master
        return
    with pytest.raises(errors.InvalidValue) as caught:
        recovery.decode_groups(groups)
    assert f"group {one + 1} is mistyped, or is group {other + 1}" in caught.value.cause
    assert f"group {other + 1} is mistyped, or is group {one + 1}" in caught.value.cause


@given(MASTERS, st.lists(st.text(ALPHABET, min_size=8, max_size=8), min_size=9, max_size=9))
def test_nonsense_is_never_another_key(master: bytes, groups: list[str]) -> None:
    """Nine random groups all being right happens once in 10**27."""
    with pytest.raises(errors.InvalidValue):
        recovery.decode_groups(groups)


@given(MASTERS, GROUP, st.integers(1, 2**30 - 1))
def test_a_group_of_another_sheet_is_found(master: bytes, group: int, change: int) -> None:
    """Right in itself: only the checksum over all tells, which cannot name it; it misses one in 16,384."""
    groups = recovery.encode_groups(master)
    value = int.from_bytes(master, "big") << 14 | recovery._check(master)
    changed = value ^ change << 30 * (recovery.GROUPS - 1 - group)
    part = changed >> 30 * (recovery.GROUPS - 1 - group) & 2**30 - 1
    groups[group] = recovery._to_text(part * 1021 + group + 1)
    other = (changed >> 14).to_bytes(32, "big")
    if changed & 2**14 - 1 == recovery._check(other):
        assert recovery.decode_groups(groups) == other
        return
    with pytest.raises(errors.InvalidValue, match="its checksum is wrong, although each group is valid"):
        recovery.decode_groups(groups)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda groups: groups[:8], "8 groups, not 9"),
        (lambda groups: [*groups, "00000000"], "10 groups, not 9"),
        (lambda groups: [groups[0][:7], *groups[1:]], "group 1 has 7 characters, not 8"),
        (lambda groups: [*groups[:8], groups[8] + "0"], "group 9 has 9 characters, not 8"),
        (lambda groups: [*groups[:4], "U" + groups[4][1:], *groups[5:]], "group 5 has a character that is never used"),
        (lambda groups: [*groups[:4], "\u00e9" + groups[4][1:], *groups[5:]], "group 5 has a character that is never"),
        (
            lambda groups: [f"{number}: {group}" for number, group in enumerate(groups, 1) if number != 7],
            "group 7 is miss",
        ),
    ],
)
def test_groups_that_are_incomplete(change: t.Callable[[list[str]], list[str]], says: str) -> None:
    with pytest.raises(errors.InvalidValue, match=says):
        recovery.read_sheet("\n".join(change(recovery.encode_groups(bytes(range(32))))))
