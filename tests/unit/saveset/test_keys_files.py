# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Key files: every method opens, nothing else does, and rotating touches no data."""

from __future__ import annotations

import json
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.access import keyfile
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.format import document
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys import keys
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.sealing import (
    generate_escrow_pair,
    load_private_key,
    load_public_key,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import ScryptCost, Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import local
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from .conftest import Lab

CHEAP = ScryptCost(n=16)
PRIVATE, PUBLIC = generate_escrow_pair(b"of the pem")
OTHER_PRIVATE, OTHER_PUBLIC = generate_escrow_pair(b"of the pem")
ESCROW = Secret(private_key=PRIVATE, private_key_password=b"of the pem")


def opened(lab: Lab, secret: Secret) -> repository.Repository:
    """The repository, opened with a secret."""
    return repository.Repository.open(lab.store(), secret)


def data_files(lab: Lab) -> dict[Path, tuple[bytes, int]]:
    """Content and time of change of everything but the key files."""
    return {
        path: (path.read_bytes(), path.stat().st_mtime_ns)
        for path in lab.files(".")
        if path.parent.name != "keys" and path.parent.name != "tmp"
    }


def test_every_method_opens(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    files = lab.open().key_files
    made = [
        files.add_passphrase(b"second", label="of the deputy", cost=CHEAP),
        files.add_escrow(PUBLIC, label="safe"),
        files.add_writer(b"third", label="backup1", cost=CHEAP),
    ]
    for secret in (lab.secret, Secret(b"second"), ESCROW):
        repo = opened(lab, secret)
        assert not repo.write_only
        assert lab.restore(repo.find("fs1/m")).read_bytes() == mixed.read_bytes()
    assert opened(lab, Secret(b"third")).write_only
    infos = {info.id: info for info in lab.open().key_files.all()}
    assert all(infos[info.id] == info for info in made)
    assert [(info.method, info.label, info.gives_master) for info in made] == [
        ("scrypt", "of the deputy", True),
        ("x25519", "safe", True),
        ("writer", "backup1", False),
    ]
    assert made[1].public_key == load_public_key(PUBLIC).hex() and made[0].public_key is None
    assert all(info.created.endswith("Z") for info in made)
    assert lab.open().verify(depth="full").ok


@pytest.mark.parametrize(
    ("secret", "error", "says"),
    [
        (Secret(), errors.WrongSecret, "is encrypted"),
        (Secret(b""), errors.WrongSecret, "is encrypted"),
        (Secret(b"wrong"), errors.WrongSecret, r"opens none of its key files \(3 tried\)"),
        (Secret(private_key=OTHER_PRIVATE, private_key_password=b"of the pem"), errors.WrongSecret, "opens none of"),
        (Secret(private_key=PRIVATE), errors.WrongSecret, "it is encrypted. Give its password"),
        (Secret(private_key=PRIVATE, private_key_password=b"no"), errors.WrongSecret, "password does not open"),
        (Secret(private_key=b"nonsense"), errors.InvalidValue, "not a private key in PEM form"),
        (Secret(private_key=PUBLIC), errors.InvalidValue, "not a private key in PEM form"),
        (Secret(master=bytes(32)), errors.WrongSecret, "not this repository's"),
        (Secret(master=bytes(31)), errors.InvalidValue, "31 bytes"),
    ],
)
def test_wrong_secrets(lab: Lab, secret: Secret, error: type[errors.SavesetError], says: str) -> None:
    files = lab.open().key_files
    files.add_passphrase(b"second", cost=CHEAP)
    files.add_escrow(PUBLIC)
    files.add_writer(b"third", cost=CHEAP)
    with pytest.raises(error, match=says):
        opened(lab, secret)


def test_a_kind_of_secret_for_which_there_is_no_key_file(lab: Lab) -> None:
    with pytest.raises(errors.WrongSecret, match="no key file for this kind of secret, only scrypt"):
        opened(lab, ESCROW)


def test_no_secret_is_in_what_is_stored_or_shown(lab: Lab) -> None:
    repo = lab.open()
    repo.key_files.add_passphrase(b"second", cost=CHEAP)
    repo.key_files.add_writer(b"third", cost=CHEAP)
    repo.key_files.add_escrow(PUBLIC)
    ring = repo._ring
    assert ring.master is not None
    secrets = [
        b"second",
        b"third",
        b"correct horse",
        ring.master.hex().encode(),
        ring.writer_keys.writer.hex().encode(),
    ]
    for path in lab.files("keys"):
        assert not [secret for secret in secrets if secret in path.read_bytes()]
    shown = repr((repo.key_files.all(), ring.writer_keys, ESCROW, Secret(b"second", master=ring.master, exported=b"e")))
    assert not [secret for secret in (*secrets, PRIVATE, b"of the pem") if secret.decode() in shown]
    assert repr(ring.master) not in shown


def test_rotation_leaves_everything_else_as_it_is(lab: Lab, mixed: Path) -> None:
    lab.backup(mixed)
    before = data_files(lab)
    assert any("packs" in path.parts for path in before)
    repo = lab.open()
    writer = repo.key_files.add_writer(b"writer 1", label="backup1", cost=CHEAP)
    first = repo.key_files.opened_by
    new = repo.key_files.change_passphrase(b"new", cost=CHEAP)
    assert repo.key_files.opened_by == new.id != first
    newer = repo.key_files.change_passphrase(b"newer", cost=CHEAP)
    rotated = repo.key_files.change_passphrase(b"writer 2", writer.id, cost=CHEAP)
    assert (rotated.method, rotated.label) == ("writer", "backup1")
    assert {info.id for info in repo.key_files.all()} == {newer.id, rotated.id}
    for old in (lab.secret, Secret(b"new"), Secret(b"writer 1")):
        with pytest.raises(errors.WrongSecret):
            opened(lab, old)
    assert lab.restore(opened(lab, Secret(b"newer")).find("fs1/m")).read_bytes() == mixed.read_bytes()
    assert opened(lab, Secret(b"writer 2")).write_only
    assert data_files(lab) == before


def test_an_escrow_key_has_no_passphrase_to_change(lab: Lab) -> None:
    escrow = lab.open().key_files.add_escrow(PUBLIC)
    repo = opened(lab, ESCROW)
    assert repo.key_files.opened_by == escrow.id
    with pytest.raises(errors.InvalidValue, match="no passphrase"):
        repo.key_files.change_passphrase(b"new", cost=CHEAP)
    with pytest.raises(errors.NotFound, match="no such key file"):
        repo.key_files.change_passphrase(b"new", "00" * 16, cost=CHEAP)


def test_removing_keys(lab: Lab) -> None:
    files = lab.open().key_files
    (first,) = files.all()
    writer = files.add_writer(b"third", cost=CHEAP)
    with pytest.raises(errors.InvalidValue, match="no other key file gives the master key"):
        files.remove(first.id)
    escrow = files.add_escrow(PUBLIC)
    files.remove(first.id)
    with pytest.raises(errors.WrongSecret):
        lab.open()
    with pytest.raises(errors.InvalidValue, match="no other key file gives the master key"):
        files.remove(escrow.id)
    files.remove(writer.id)
    assert [info.id for info in opened(lab, ESCROW).key_files.all()] == [escrow.id]
    for unknown in (writer.id, "", "../repo", "*"):
        with pytest.raises(errors.NotFound):
            files.remove(unknown)


def test_a_damaged_key_file_can_be_removed_and_does_not_count(lab: Lab) -> None:
    repo = lab.open()
    (first,) = repo.key_files.all()
    second = repo.key_files.add_passphrase(b"second", cost=CHEAP)
    path = lab.path / second.name
    path.write_bytes(path.read_bytes()[:-10])
    assert [problem["object"] for problem in repo.verify().problems] == [second.name]
    assert [info.id for info in lab.open().key_files.all()] == [first.id]
    with pytest.raises(errors.InvalidValue):
        repo.key_files.remove(first.id)
    repo.key_files.remove(second.id)
    assert repo.verify().ok


def test_one_passphrase_never_gives_both(lab: Lab) -> None:
    files = lab.open().key_files
    with pytest.raises(errors.InvalidValue, match="must not also give the master key"):
        files.add_writer(b"correct horse", cost=CHEAP)
    files.add_writer(b"third", cost=CHEAP)
    for action in (files.add_passphrase, files.change_passphrase, files.export):
        with pytest.raises(errors.InvalidValue, match="must not also give the master key"):
            action(b"third", cost=CHEAP)
    for action in (files.add_passphrase, files.add_writer, files.change_passphrase, files.export):
        with pytest.raises(errors.InvalidValue, match="empty"):
            action(b"", cost=CHEAP)
    assert opened(lab, Secret(b"third")).write_only and len(files.all()) == 2


def test_finding_a_key(lab: Lab) -> None:
    files = lab.open().key_files
    writer, escrow = files.add_writer(b"third", cost=CHEAP), files.add_escrow(PUBLIC)
    assert files.find_passphrase("writer", b"third") == writer
    assert files.find_passphrase("scrypt", b"third") is None
    assert files.find_escrow(PUBLIC) == escrow
    assert files.find_escrow(OTHER_PUBLIC) is None


def test_the_master_is_preferred(lab: Lab) -> None:
    """Whatever the order of the files: with several secrets, the one that reads counts."""
    files = lab.open().key_files
    for number in range(4):
        files.add_writer(b"writer %d" % number, cost=CHEAP)
    files.add_escrow(PUBLIC)
    both = Secret(b"writer 3", private_key=PRIVATE, private_key_password=b"of the pem")
    assert not opened(lab, both).write_only


# -- public keys


def test_public_keys_that_are_refused(lab: Lab) -> None:
    files = lab.open().key_files
    ed25519 = Ed25519PrivateKey.generate().public_key()
    x25519_zero = load_public_key(PUBLIC)
    der = serialization.load_pem_public_key(PUBLIC).public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    assert der.endswith(x25519_zero)
    zero = serialization.load_der_public_key(der[:-32] + bytes(32))
    pem = (serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for bad, says in (
        (b"", "not a public key in PEM form"),
        (PRIVATE, "it is a private key"),
        (ed25519.public_bytes(*pem), "not an X25519 key"),
        (zero.public_bytes(*pem), "nothing can be sealed to it"),
    ):
        with pytest.raises(errors.InvalidValue, match=says):
            files.add_escrow(bad)
    assert len(files.all()) == 1


def test_keys_that_openssl_makes(lab: Lab, tmp_path: Path) -> None:
    """Without encryption, and encrypted with scrypt, as docs/keys.md tells."""

    def openssl(*args: str) -> None:
        subprocess.run(["openssl", *args], check=True, cwd=tmp_path, capture_output=True)

    openssl("genpkey", "-algorithm", "X25519", "-out", "plain.pem")
    openssl("pkey", "-in", "plain.pem", "-pubout", "-out", "public.pem")
    openssl("pkcs8", "-topk8", "-in", "plain.pem", "-scrypt", "-passout", "pass:long", "-out", "private.pem")
    lab.open().key_files.add_escrow((tmp_path / "public.pem").read_bytes())
    plain, private = (tmp_path / "plain.pem").read_bytes(), (tmp_path / "private.pem").read_bytes()
    assert load_private_key(plain, None) == load_private_key(plain, b"not needed") == load_private_key(private, b"long")
    assert not opened(lab, Secret(private_key=private, private_key_password=b"long")).write_only
    ed25519 = tmp_path / "ed25519.pem"
    openssl("genpkey", "-algorithm", "ED25519", "-out", ed25519.name)
    with pytest.raises(errors.InvalidValue, match="not an X25519 key"):
        load_private_key(ed25519.read_bytes(), None)


def test_an_escrow_pair_needs_a_password() -> None:
    assert b"BEGIN ENCRYPTED PRIVATE KEY" in PRIVATE
    with pytest.raises(errors.InvalidValue, match="empty"):
        generate_escrow_pair(b"")


# -- files that somebody changed


def tamper(lab: Lab, info: keyfile.KeyInfo, **changes: t.Any) -> None:
    """Write a key file anew with other fields and the MAC that it had: what somebody without the key can do."""
    path = lab.path / info.name
    fields = json.loads(path.read_bytes())
    mac = bytes.fromhex(fields.pop("mac"))
    fields.pop("hash")
    path.write_bytes(document.sign_document("key", {**fields, **changes}, lambda _label, _data: mac))


def test_a_key_file_that_somebody_changed_is_found(lab: Lab) -> None:
    repo = lab.open()
    escrow = repo.key_files.add_escrow(PUBLIC)
    tamper(lab, escrow, public_key=load_public_key(OTHER_PUBLIC).hex())
    (problem,) = repo.verify().problems
    assert problem["object"] == escrow.name and "MAC" in str(problem["problem"])
    assert escrow.id not in {info.id for info in lab.open().key_files.all()}


@pytest.mark.parametrize(
    "changes",
    [{"n": 15}, {"n": -16}, {"r": 0}, {"p": 1 << 16}, {"n": 1 << 40}, {"n": "x"}, {"salt": "zz"}, {"wrapped": 7}],
)
def test_fields_that_make_no_sense(lab: Lab, changes: dict[str, t.Any]) -> None:
    (first,) = lab.open().key_files.all()
    tamper(lab, first, **changes)
    with pytest.raises(errors.Damaged, match=first.name):
        lab.open()


@pytest.mark.parametrize("changes", [{"sealed": "00" * 80}, {"sealed": ""}, {"public_key": None}, {"id": "00" * 16}])
def test_escrow_fields_that_make_no_sense(lab: Lab, changes: dict[str, t.Any]) -> None:
    info = lab.open().key_files.add_escrow(PUBLIC)
    tamper(lab, info, **changes)
    with pytest.raises(errors.Damaged, match=info.name):
        opened(lab, ESCROW)


def test_a_change_that_is_cut_short_locks_nobody_out(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new key file is there, whole, before the old one goes."""

    def cut(_store: local.LocalStore, _name: str) -> None:
        raise errors.StoreError("the store", "it is gone", "Wait")

    repo = lab.open()
    monkeypatch.setattr(local.LocalStore, "delete", cut)
    with pytest.raises(errors.StoreError):
        repo.key_files.change_passphrase(b"new", cost=CHEAP)
    for secret in (lab.secret, Secret(b"new")):
        assert len(opened(lab, secret).key_files.all()) == 2


def test_methods_cannot_be_exchanged(lab: Lab) -> None:
    """A writer's file that calls itself the master's does not open, nor the other way round."""
    files = lab.open().key_files
    (first,) = files.all()
    writer = files.add_writer(b"third", cost=CHEAP)
    tamper(lab, writer, method="scrypt")
    with pytest.raises(errors.WrongSecret):
        opened(lab, Secret(b"third"))
    tamper(lab, first, method="writer")
    with pytest.raises(errors.WrongSecret):
        lab.open()


def test_a_planted_master_does_not_open(lab: Lab) -> None:
    """Anybody can seal a key of their own to the escrow public key; it is passed over for the right one."""
    planted = keys.KeyRing(lab.open().id, bytes(range(32)))
    info, data = keyfile.escrow_key(planted, load_public_key(PUBLIC), "planted")
    (lab.path / info.name).write_bytes(data)
    with pytest.raises(errors.Damaged, match="repo.json: its MAC is wrong"):
        opened(lab, ESCROW)
    right = lab.open().key_files.add_escrow(PUBLIC)
    assert opened(lab, ESCROW).key_files.opened_by == right.id
    assert [problem["object"] for problem in lab.open().verify().problems] == [info.name]


def test_key_files_of_newer_versions_are_passed_over(lab: Lab) -> None:
    repo = lab.open()
    info, data = keyfile.escrow_key(repo._ring, load_public_key(PUBLIC), "")
    fields = {**document.decode_document(info.name, data, "key").fields, "method": "command"}
    (lab.path / info.name).write_bytes(document.encode_document("key", fields, repo._ring.mac))
    assert lab.open().verify().ok
    assert "command" in {found.method for found in repo.key_files.all()}
    with pytest.raises(errors.InvalidValue):
        repo.key_files.remove(str(repo.key_files.opened_by))
    (lab.path / "keys" / f"{repo.key_files.opened_by}.json").unlink()
    with pytest.raises(errors.UnsupportedFormat, match="unknown methods"):
        lab.open()
    assert [problem["object"] for problem in repo.verify().problems] == ["keys"]


def test_a_writer_alone_leaves_nothing_to_read_with(lab: Lab) -> None:
    repo = lab.open()
    repo.key_files.add_writer(b"third", cost=CHEAP)
    (lab.path / "keys" / f"{repo.key_files.opened_by}.json").unlink()
    (problem,) = opened(lab, Secret(b"third")).verify().problems
    assert problem["object"] == "keys" and "can no longer be read" in str(problem["problem"])


def test_a_renamed_key_file_is_found(lab: Lab) -> None:
    repo = lab.open()
    shutil.copy(lab.path / repo.key_files.all()[0].name, lab.path / "keys" / f"{'0' * 32}.json")
    (problem,) = repo.verify().problems
    assert problem["object"] == f"keys/{'0' * 32}.json" and "renamed" in str(problem["problem"])


def test_an_unencrypted_repository_has_no_keys(plain_lab: Lab) -> None:
    files = plain_lab.open().key_files
    assert files.all() == [] and plain_lab.open().verify().ok
    with pytest.raises(errors.InvalidValue, match="not encrypted"):
        files.add_passphrase(b"second", cost=CHEAP)
    for secret in (Secret(b"x"), ESCROW, Secret(master=bytes(32))):
        with pytest.raises(errors.WrongSecret, match="not encrypted"):
            opened(plain_lab, secret)
