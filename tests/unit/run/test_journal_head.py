# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Kept heads of the run journal: whoever owns its host can change the journal, and not without being seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.backup import kept_journal
from ansible_collections.openisb.backup.plugins.module_utils.backup.kept_journal import KeptJournal
from ansible_collections.openisb.backup.plugins.module_utils.control.decision import kept_journal_problems
from ansible_collections.openisb.backup.plugins.module_utils.journal import head as journal_head
from ansible_collections.openisb.backup.plugins.module_utils.journal.head import (
    HeadError,
    continuation_problems,
    decode,
    encode,
    kept_heads,
    object_name,
)
from ansible_collections.openisb.backup.plugins.module_utils.journal.journal import (
    GENESIS,
    Journal,
    chain_problems,
    record_hash,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys.secret import Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import NO_ENCRYPTION, Repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import open_store
from ansible_collections.openisb.backup.plugins.modules import run_journal_info
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

Play = Callable[..., list[dict[str, Any]]]
Record = dict[str, Any]
RUNS = [f"isb-2026112{number}T021500Z-4f1c2a" for number in range(6)]
PEM = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())


def records_of(runs: list[str], tmp_path: Path) -> list[Record]:
    """What a journal has after these runs."""
    journal = Journal(str(tmp_path / "made" / "runs.jsonl"))
    for run in runs:
        journal.append(run, "opened", {"servers": ["fs1"], "share": 0.1, "name": "Ärzte"})
        journal.append(run, "closed", {"verdict": "application-consistent"})
    return journal.records()


@pytest.fixture
def records(tmp_path: Path) -> list[Record]:
    return records_of(RUNS[:4], tmp_path)


def read(records: list[Record], since: int) -> dict[str, Any]:
    """What run_journal_info says of a journal."""
    head = records[-1]["hash"] if records else GENESIS
    return {"records": records[since - 1 :], "count": len(records), "chain_head": head}


def kept(record: Record) -> dict[str, Any]:
    return {"where": "the repository /r", "seq": record["seq"], "hash": record["hash"]}


def rechained(records: list[Record], change: Callable[[list[Record]], Any]) -> list[Record]:
    """The journal after a change, and chained anew by whoever made it, so that it holds in itself."""
    changed, previous = json.loads(json.dumps(records)), GENESIS
    change(changed)
    for seq, record in enumerate(changed, start=1):
        record.update(seq=seq, previous=previous)
        previous = record["hash"] = record_hash(record)
    assert chain_problems(changed) == []
    return changed


def test_a_journal_that_went_on_continues_what_was_kept(records: list[Record]) -> None:
    for head in records:
        assert continuation_problems(read(records, head["seq"]), [kept(head)]) == []
    assert continuation_problems(read(records, 3), [kept(records[2]), kept(records[5])]) == []
    assert continuation_problems(read(records, 1), [kept(records[2])], 1) == []
    assert continuation_problems(read([], 1), []) == []
    assert continuation_problems(read(records, 1), [{"where": "w", "seq": 0, "hash": GENESIS}]) == []


def test_a_journal_that_was_cut_is_not_the_one_that_was_kept(records: list[Record]) -> None:
    cut = records[:5]
    assert chain_problems(cut) == []
    (problem,) = continuation_problems(read(cut, 8), [kept(records[7])])
    assert problem == "it has 5 records, and by the repository /r it had 8"
    (problem,) = continuation_problems(read([], 8), [kept(records[7])])
    assert problem.startswith("it has 0 records")


def test_a_journal_put_back_from_an_older_copy_that_then_grew_is_found(records: list[Record], tmp_path: Path) -> None:
    old = records[:4]
    path = tmp_path / "older" / "runs.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(record) + "\n" for record in old))
    journal = Journal(str(path))
    for run in RUNS[4:]:
        journal.append(run, "opened")
        journal.append(run, "closed")
    grown = journal.records()
    assert len(grown) == len(records) and chain_problems(grown) == []
    (problem,) = continuation_problems(read(grown, 8), [kept(records[7])])
    assert problem == "its record 8 does not have the hash that the repository /r keeps"


def test_a_crash_between_a_record_and_its_head_leaves_a_journal_that_continues_the_head_before(
    records: list[Record], tmp_path: Path
) -> None:
    """The record is on the disk, and no head tells of it: the next run goes on from there."""
    head = kept(records[-1])
    journal = Journal(str(tmp_path / "made" / "runs.jsonl"))
    journal.append(RUNS[4], "opened")
    after = journal.records()
    assert continuation_problems(read(after, len(records)), [head]) == []
    # So does the tail alone, by which the next head is made: it says who was opened, and hangs together.
    tail = run_journal_info.read_tail(journal, {"run_id": None, "events": None, "since": len(records)})
    assert continuation_problems(tail, [head]) == [] and tail["problems"] == []
    assert [record["event"] for record in tail["records"]] == ["closed", "opened"]
    # A tail that does not go on from what was seen is found, as the whole is.
    forged = rechained(after, lambda all_: all_[2]["data"].update(servers=[]))
    path = tmp_path / "forged.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in forged))
    tail = run_journal_info.read_tail(Journal(str(path)), {"run_id": None, "events": None, "since": len(records)})
    assert tail["problems"] == []
    assert "does not have the hash that" in continuation_problems(tail, [head])[0]


@pytest.mark.parametrize(
    "change",
    [
        lambda records: records[1]["data"].update(verdict="failed"),
        lambda records: records.pop(2),
        lambda records: records.reverse(),
        lambda records: records.insert(2, dict(records[2])),
    ],
)
def test_a_journal_that_was_chained_anew_is_found(records: list[Record], change: Callable[[list[Record]], Any]) -> None:
    forged = rechained(records, change)
    problems = continuation_problems(read(forged, 6), [kept(records[5])])
    assert problems == ["its record 6 does not have the hash that the repository /r keeps"]


def test_a_host_is_not_taken_at_its_word(records: list[Record]) -> None:
    """It knows which hash is looked for, and can write it anywhere but into what the hash is of."""
    head = kept(records[5])
    forged = read(rechained(records, lambda all_: all_[5]["data"].update(servers=[])), 6)
    forged["records"][0]["hash"] = records[5]["hash"]
    assert continuation_problems(forged, [head]) == ["its record 6 does not have the hash that the repository /r keeps"]
    true = read(records, 6)
    assert "in place of record 7" in continuation_problems({**true, "records": [true["records"][0]] * 2}, [head])[0]
    assert "its records end with record 6" in continuation_problems({**true, "records": true["records"][:1]}, [head])[0]
    assert "its records end with" in continuation_problems({**true, "chain_head": "0" * 64}, [head])[0]
    assert "its records end with" in continuation_problems({**true, "records": []}, [head])[0]
    for nonsense in ("text", None, {}, {"seq": "6"}, {"seq": -1}):
        assert "it has another record, or none" in continuation_problems({**true, "records": [nonsense]}, [head])[0]
    assert continuation_problems({**true, "records": true["records"][1:]}, [head]) != []


def test_a_host_that_lies_of_what_is_older_is_found_when_the_whole_is_asked_for(records: list[Record]) -> None:
    """It has cut what is older than the kept head, and gives the rest, and the number of records, as if it had not."""
    head, told = kept(records[5]), read(records, 6)
    assert continuation_problems(told, [head]) == []
    whole = read(records, 1)
    assert continuation_problems(whole, [head], 1) == []
    forged = rechained(records, lambda all_: all_[1]["data"].update(verdict="failed"))
    shown = [*forged[:5], *records[5:]]
    assert continuation_problems({**whole, "records": shown}, [head], 1) == [
        "record 6 does not follow the record before it"
    ]
    left_out = {**whole, "records": records[2:]}
    problems = ["in place of record 1 it has another record, or none"]
    assert continuation_problems(left_out, [head], 1) == problems
    assert continuation_problems(left_out, [], 1) == problems
    assert continuation_problems(whole, [], 1) == []


# The backup server


class BackupServer:
    """A repository and a report key."""

    def __init__(self, folder: Path) -> None:
        self.repository, self.key = folder / "repository", folder / "report-key.pem"
        folder.mkdir()
        self.new_key()
        Repository.create(open_store(str(self.repository)), Secret(), encryption=NO_ENCRYPTION)

    def new_key(self) -> None:
        self.key.write_bytes(Ed25519PrivateKey.generate().private_bytes(*PEM))

    @property
    def kept(self) -> KeptJournal:
        return KeptJournal(str(self.repository), "backup1", str(self.key))

    @property
    def object(self) -> Path:
        return self.repository / "journal" / "backup1.json"

    def keep(self, record: Record, number: int = 1) -> dict[str, Any]:
        told = {name: record[name] for name in ("seq", "hash", "run_id", "time")}
        head = self.kept.sign({"number": number, "accepted": False, **told})
        self.kept.write(head)
        return head

    def info(self) -> dict[str, Any]:
        """What journal_head_info says."""
        try:
            head, problem = self.kept.read(), ""
        except HeadError as error:
            head, problem = {}, str(error)
        common = {"listener": "backup1", "repository": "/r", "repository_id": self.kept.repository_id()}
        return {"head": head, "problem": problem, "fingerprint": self.kept.fingerprint, **common}


@pytest.fixture
def backup_server(tmp_path: Path) -> BackupServer:
    return BackupServer(tmp_path / "backup1")


def test_what_is_kept_is_read_again(backup_server: BackupServer, records: list[Record]) -> None:
    assert backup_server.kept.read() == {}
    head = backup_server.keep(records[3])
    assert backup_server.kept.read() == head
    repository_id = json.loads((backup_server.repository / "repo.json").read_text())["id"]
    assert (head["seq"], head["hash"], head["repository"]) == (4, records[3]["hash"], repository_id)
    backup_server.keep(records[7], 2)
    assert backup_server.kept.read()["seq"] == 8
    assert [path.name for path in backup_server.object.parent.iterdir()] == ["backup1.json"]


@pytest.mark.parametrize(
    "change", [{"seq": 2}, {"hash": "0" * 64}, {"number": 9}, {"accepted": True}, {"time": "2020"}, {"more": 1}]
)
def test_a_head_that_was_changed_is_not_relied_on(
    backup_server: BackupServer, records: list[Record], change: dict[str, Any]
) -> None:
    head = backup_server.keep(records[3])
    backup_server.object.write_bytes(encode({**head, **change}))
    with pytest.raises(HeadError, match="its signature is not the backup server's"):
        backup_server.kept.read()


def test_a_head_that_somebody_else_signed_is_not_relied_on(
    backup_server: BackupServer, records: list[Record], tmp_path: Path
) -> None:
    stranger = BackupServer(tmp_path / "stranger")
    forged = stranger.keep(records[3])
    backup_server.object.parent.mkdir()
    backup_server.object.write_bytes(encode(forged))
    with pytest.raises(HeadError, match="signed with the key of SHA-256"):
        backup_server.kept.read()
    backup_server.object.write_bytes(encode({**forged, "key": backup_server.kept.fingerprint}))
    with pytest.raises(HeadError, match="its signature is not the backup server's"):
        backup_server.kept.read()


def test_the_signature_of_a_report_is_none_of_a_head(backup_server: BackupServer, records: list[Record]) -> None:
    """The same key signs reports, whose text others have a say in."""
    head = backup_server.keep(records[3])
    report = encode({name: value for name, value in head.items() if name != "signature"}).strip()
    key = kept_journal.read_private_key(str(backup_server.key))
    signed = kept_journal.signature.sign(report, key)
    backup_server.object.write_bytes(encode({**head, "signature": signed}))
    with pytest.raises(HeadError, match="its signature"):
        backup_server.kept.read()


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "not JSON"),
        (b"[" * 3000, "not JSON"),
        (b"[]", "not a journal-head"),
        (b'{"openisb":"journal-head","version":2}', "not a journal-head of version 1"),
        (b'{"openisb":"journal-head","version":1}', "incomplete or malformed"),
        (b" " * (journal_head.MAX_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_head_is_refused(data: bytes, problem: str) -> None:
    with pytest.raises(HeadError, match=problem):
        decode(data, "backup1")


@pytest.mark.parametrize(
    "change",
    [{"number": 0}, {"seq": True}, {"seq": "4"}, {"hash": "0" * 64 + "\n"}, {"hash": "g" * 64}, {"signature": None}],
)
def test_a_head_has_its_form(backup_server: BackupServer, records: list[Record], change: dict[str, Any]) -> None:
    head = backup_server.keep(records[3])
    assert decode(encode(head), "backup1") == head
    with pytest.raises(HeadError, match="incomplete or malformed"):
        decode(encode({**head, **change}), "backup1")
    with pytest.raises(HeadError, match="another listener"):
        decode(encode(head), "backup2")


def test_any_host_has_a_name_of_its_own_in_the_repository() -> None:
    assert object_name("backup.example.org") == "journal/backup.example.org.json"
    assert object_name("../../etc/x\n") == "journal/..%2F..%2Fetc%2Fx%0A.json"


def test_a_key_that_is_none_is_named_with_the_remedy(backup_server: BackupServer) -> None:
    backup_server.key.write_text("-----BEGIN NONSENSE-----")
    with pytest.raises(HeadError, match="report-key.pem.*cannot be used.*setup.yml"):
        backup_server.kept.read()
    backup_server.key.unlink()
    with pytest.raises(HeadError, match=r"No such file.*setup\.yml"):
        backup_server.kept.read()


# Repository and controller


def test_repository_and_controller_agree(backup_server: BackupServer, records: list[Record]) -> None:
    copy = encode(backup_server.keep(records[3], 1)).decode()
    backup_server.keep(records[5], 2)
    found = kept_heads(backup_server.info(), copy, "/heads/backup1.json")
    assert found["problems"] == []
    assert [head["seq"] for head in found["heads"]] == [6, 4]
    assert (found["since"], found["after"]) == (4, 2)
    assert kept_heads(backup_server.info(), "", "")["since"] == 6
    assert continuation_problems(read(records, 4), found["heads"]) == []
    problems = continuation_problems(read(records[:5], 4), found["heads"])
    assert problems == ["it has 5 records, and by the repository /r it had 6"]


def test_an_older_head_in_the_repository_than_on_the_controller_is_told(
    backup_server: BackupServer, records: list[Record]
) -> None:
    backup_server.keep(records[3], 1)
    older = backup_server.object.read_bytes()
    copy = encode(backup_server.keep(records[5], 2)).decode()
    backup_server.object.write_bytes(older)
    found = kept_heads(backup_server.info(), copy, "/heads/backup1.json")
    assert "older kept head (number 1) than the copy /heads/backup1.json" in found["problems"][0]
    backup_server.object.unlink()
    assert "(none)" in kept_heads(backup_server.info(), copy, "/heads/backup1.json")["problems"][0]
    # The copy still shows what the repository does not show any more.
    assert continuation_problems(read(records[:5], 5), found["heads"]) != []


def test_another_repository_owes_the_controller_no_head(
    backup_server: BackupServer, records: list[Record], tmp_path: Path
) -> None:
    copy = encode(backup_server.keep(records[5], 2)).decode()
    other = BackupServer(tmp_path / "other")
    found = kept_heads(other.info(), copy, "/heads/backup1.json")
    assert (found["problems"], found["since"]) == ([], 6)


def test_another_key_is_told(backup_server: BackupServer, records: list[Record]) -> None:
    copy = encode(backup_server.keep(records[3], 1)).decode()
    backup_server.new_key()
    (problem,) = kept_heads(backup_server.info(), copy, "/c")["problems"]
    assert "signed with the key of SHA-256" in problem
    backup_server.keep(records[5], 2)
    (problem,) = kept_heads(backup_server.info(), copy, "/c")["problems"]
    assert "signs with another key" in problem


def test_a_damaged_copy_is_told(backup_server: BackupServer, records: list[Record]) -> None:
    backup_server.keep(records[3])
    (problem,) = kept_heads(backup_server.info(), '{"openisb"', "/c")["problems"]
    assert problem == "the copy /c on the controller cannot be used: it is not JSON"


# Preflight

GROUPS = {"listeners": ["backup1"], "backup_servers": ["backup1"]}


def found(journal: dict[str, Any], heads: dict[str, Any], **more: Any) -> dict[str, Any]:
    told = {"open_runs": [], "problems": [], "kept": heads, "kept_problem": "", **journal, **more}
    host = {"openisb_host": {"journal": "/j"}, "isb_backup_server": "backup1"}
    return {"backup1": {**host, "preflight_found": {"listener": told}}}


def test_a_cut_journal_stops_a_run_with_cause_and_remedy(backup_server: BackupServer, records: list[Record]) -> None:
    backup_server.keep(records[7])
    heads = kept_heads(backup_server.info(), "", "")
    hostvars = found(read(records, 8), heads)
    assert kept_journal_problems(GROUPS, hostvars, "") == []
    cut = found(read(records[:5], 8), heads)
    (problem,) = kept_journal_problems(GROUPS, cut, "")
    assert problem.startswith("backup1: the journal /j does not match its kept head: it has 5 records")
    assert f"-e isb_journal_accept={records[4]['hash']}" in problem
    # Only this very journal is accepted, and it is no word for any other.
    assert kept_journal_problems(GROUPS, cut, records[4]["hash"]) == []
    assert "(not 00" in kept_journal_problems(GROUPS, cut, GENESIS)[0]
    assert kept_journal_problems(GROUPS, found(read([], 8), heads), GENESIS) == []


def test_a_head_that_cannot_be_read_stops_a_run(records: list[Record]) -> None:
    hostvars = found(read(records, 1), {}, kept_problem="The kept head cannot be read: no key")
    assert kept_journal_problems(GROUPS, hostvars, records[-1]["hash"]) == [
        "backup1: The kept head cannot be read: no key"
    ]
    # A backup server that is not set up says so once.
    hostvars["backup1"]["preflight_found"]["repository"] = {"problem": "run setup.yml"}
    assert kept_journal_problems(GROUPS, hostvars, "") == []


# As Ansible runs it


class Site:
    """A listener that is a backup server too, and a controller that keeps copies."""

    def __init__(self, play: Play, folder: Path, backup_server: BackupServer) -> None:
        self._play, self.copies = play, folder / "heads"
        self.journal, self.backup_server = Journal(str(folder / "state" / "journal" / "runs.jsonl")), backup_server
        python = "{{ ansible_playbook_python }}"
        self.places = {"journal": self.journal.path, "python": python, "report_key": str(backup_server.key)}
        self.places["repository"] = str(backup_server.repository)

    def play(self, tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Run tasks on the listener, with a second backup server that does not answer."""
        options = {"openisb_host": self.places, "isb_backup_server": "local", "isb_journal_heads": str(self.copies)}
        gone = {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_connection": "ssh"}
        return self._play(tasks, "-e", json.dumps(options), hosts={"gone": gone})

    def preflight(self, **variables: Any) -> dict[str, Any]:
        """What preflight finds of the journal."""
        role = {"ansible.builtin.include_role": {"name": "openisb.backup.preflight", "tasks_from": "listener"}}
        results = self.play([{**role, "vars": variables}, {"ansible.builtin.debug": {"var": "preflight_found"}}])
        listener: dict[str, Any] = results[-1]["preflight_found"]["listener"]
        assert "problem" not in listener, listener
        return listener

    def keep(self, seq: int, head: str, **variables: Any) -> dict[str, Any]:
        """Keep the head, after the journal was seen until record ``seq``; the result of the last task that ran."""
        role = {"name": "openisb.backup.listener", "tasks_from": "keep", "apply": {"ignore_errors": False}}
        base = {"listener_backup_server": "local", "listener_base": {"seq": seq, "hash": head}}
        keep = {"name": "Keep", "ansible.builtin.include_role": role, "vars": {**base, **variables}}
        rescue = {"name": "Rescued", "ansible.builtin.debug": {"msg": "rescued"}}
        results = self.play([{"name": "As in a run", "block": [keep], "rescue": [rescue]}])
        return next((result for result in results if result.get("failed")), results[-1])

    def run(self, run_id: str) -> None:
        self.journal.append(run_id, "opened", {"share": 0.1, "name": "Ärzte {{ 1 }}"})
        self.journal.append(run_id, "closed")

    def problems(self, listener: dict[str, Any], accept: str = "") -> list[str]:
        """What preflight has against a journal in which it has found that."""
        host = {"openisb_host": self.places, "isb_backup_server": "backup1", "preflight_found": {"listener": listener}}
        return kept_journal_problems(GROUPS, {"backup1": host}, accept)


@pytest.fixture
def site(play: Play, tmp_path: Path, backup_server: BackupServer) -> Site:
    return Site(play, tmp_path, backup_server)


@pytest.mark.slow
def test_the_roles_keep_and_compare(site: Site) -> None:
    site.run(RUNS[0])
    seen = site.preflight()
    assert site.problems(seen) == []  # nothing is kept yet
    done = site.keep(seen["count"], seen["chain_head"])
    assert not done.get("failed"), done
    stored = json.loads((site.backup_server.repository / "journal" / "local.json").read_text())
    copy = site.copies / "local.json"
    assert json.loads(copy.read_text()) == stored
    assert (stored["seq"], stored["number"], stored["accepted"]) == (2, 1, False)
    site.run(RUNS[1])
    seen = site.preflight()
    assert site.problems(seen) == []
    assert [record["seq"] for record in seen["records"]] == [2, 3, 4]
    seen = site.preflight(preflight_journal_whole=True)
    assert site.problems(seen) == []
    assert [record["seq"] for record in seen["records"]] == [1, 2, 3, 4]

    # Cut, and chained anew to the same length.
    Path(site.journal.path).write_text(Path(site.journal.path).read_text().splitlines()[0] + "\n")
    site.journal.append(RUNS[0], "closed", {"verdict": "failed"})
    site.run(RUNS[1])
    seen = site.preflight()
    problems = site.problems(seen)
    assert len(problems) == 2 and all("its record 2 does not have the hash that" in problem for problem in problems)

    # No head of this journal takes the place of the kept one, but by the operator's word.
    refused = site.keep(2, stored["hash"])
    assert "was changed during this run" in refused["msg"]
    assert json.loads(copy.read_text()) == stored
    assert site.problems(seen, seen["chain_head"]) == []
    done = site.keep(seen["count"], seen["chain_head"], listener_accepted=True, listener_after=7)
    assert not done.get("failed"), done
    accepted = json.loads(copy.read_text())
    assert (accepted["seq"], accepted["number"], accepted["accepted"]) == (4, 8, True)
    assert site.problems(site.preflight()) == []


@pytest.mark.slow
def test_a_backup_server_that_does_not_answer_is_told(site: Site) -> None:
    """And can be rescued: the run that was opened is closed again."""
    site.run(RUNS[0])
    done = site.keep(0, GENESIS, listener_backup_server="gone")
    assert "backup server gone does not answer" in done["msg"]
    assert not site.copies.exists()


@pytest.mark.slow
def test_a_head_never_goes_back(site: Site) -> None:
    site.run(RUNS[0])
    site.run(RUNS[1])
    task = {
        "openisb.backup.journal_head": {
            "repository": site.places["repository"],
            "listener": "local",
            "key": site.places["report_key"],
            "record": "{{ journal.records[index] }}",
        }
    }
    read_all = {"openisb.backup.run_journal_info": {"path": site.journal.path, "since": 1}, "register": "journal"}
    checked = {**task, "vars": {"index": 3}, "check_mode": True}
    results = site.play([read_all, checked, {**task, "vars": {"index": 3}}, {**task, "vars": {"index": 0}}])
    assert results[1]["head"]["seq"] == results[2]["head"]["seq"] == 4
    assert results[2]["diff"]["before"] == {}
    assert "record 1 is older than record 4" in results[3]["msg"]
