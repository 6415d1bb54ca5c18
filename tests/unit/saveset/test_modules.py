# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Restoring and verifying as Ansible does it."""

from __future__ import annotations

import contextlib
import json
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.host import jobs
from ansible_collections.openisb.backup.plugins.modules import block_backup, block_restore, saveset_verify

from .conftest import MIB, Lab, MakeImage, text, write

MOMENT = {"consistency_point": "2026-03-01T12:00:00+00:00", "verdict": "application-consistent"}
Result = dict[str, t.Any]
Call = t.Callable[..., Result]


@pytest.fixture
def call(lab: Lab, capsys: pytest.CaptureFixture[str]) -> Call:
    """Calls a module with the repository and its passphrase, and returns its result."""

    def run(module: t.Any, check_mode: bool = False, **options: t.Any) -> Result:
        arguments = {
            "repository": str(lab.path),
            "passphrase": "correct horse",
            "job": "job",
            "run_dir": str(lab.folder / "run"),
            **({"state_dir": str(lab.folder / "state")} if module is block_restore else {}),
            **options,
            "_ansible_check_mode": check_mode,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            module.main()
        result: Result = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def savesets(lab: Lab, make_image: MakeImage) -> list[t.Any]:
    """Savesets of two servers."""
    return [lab.backup(make_image(f"v{n}", MIB, [(0, text(MIB, n))]), volume=f"fs{n}/m") for n in (1, 2)]


def test_the_pace_of_a_backup(call: Call, lab: Lab, mixed: Path) -> None:
    """A bound that no read keeps, and one that every read keeps."""
    options = {"volumes": [{"volume": "fs1/m", "source": str(mixed)}], **MOMENT}
    held = call(block_backup, run_id="held", read_latency=0.0001, workers=2, **options)["savesets"][0]["stats"]
    assert held["slow_reads"] >= held["bytes_read"] // MIB > 0 and 0 < held["seconds_paused"] < held["seconds"]
    free = call(block_backup, run_id="free", read_latency=60_000, **options)["savesets"][0]["stats"]
    assert (free["slow_reads"], free["seconds_paused"]) == (0, 0)
    for name in ("read_latency", "rate_limit"):
        assert call(block_backup, run_id="none", **options, **{name: -1})["msg"].startswith(
            f"{name} -1.0 is less than 0"
        )
    assert {info.run_id for info in lab.open().savesets()} == {"held", "free"}


@pytest.fixture
def volumes(mixed: Path, make_image: MakeImage) -> list[dict[str, t.Any]]:
    """Options for three volumes of a server."""
    images = {"m": mixed, "data": make_image("data", 2 * MIB, [(0, text(2 * MIB, 5))]), "empty": make_image("e", MIB)}
    return [
        {"volume": f"fs1/{name}", "source": str(path), "metadata": {"name": name}, "changes": {"reason": f"new {name}"}}
        for name, path in images.items()
    ]


def test_the_volumes_of_a_server_are_one_task(call: Call, lab: Lab, volumes: list[dict[str, t.Any]]) -> None:
    """One of them fails first: the others have savesets, the task names it, and only it is done the next time."""
    missing = Path(volumes[1]["source"]).rename(lab.folder / "away")
    options = {"volumes": volumes, "run_id": "run", "slots": 1, **MOMENT}
    first = call(block_backup, **options)
    assert first["failed"] and first["changed"]
    assert [saveset["volume"] for saveset in first["savesets"]] == ["fs1/m", "fs1/empty"]
    assert [(saveset["metadata"], saveset["origin"]["reason"]) for saveset in first["savesets"]] == [
        ({"name": "m"}, "new m"),
        ({"name": "empty"}, "new empty"),
    ]
    (problem,) = first["problems"]
    assert problem["volume"] == "fs1/data" and "No such file or directory" in problem["msg"]
    assert first["msg"] == f"Backup of volume fs1/data: {problem['msg']}"
    assert first["diff"] == {"before": {}, "after": {"savesets": first["savesets"]}}

    missing.rename(volumes[1]["source"])
    planned = call(block_backup, check_mode=True, **options)
    assert planned["changed"] and "failed" not in planned and len(lab.open().savesets()) == 2
    assert {saveset["id"] for saveset in planned["savesets"]} == {saveset["id"] for saveset in first["savesets"]}
    second = call(block_backup, **options)
    assert second["changed"] and "failed" not in second and second["problems"] == []
    assert [saveset["volume"] for saveset in second["savesets"]] == [each["volume"] for each in volumes]
    third = call(block_backup, **options)
    assert not third["changed"] and [each["id"] for each in third["savesets"]] == [
        each["id"] for each in second["savesets"]
    ]
    assert not call(block_backup, check_mode=True, **options)["changed"]
    for each in volumes:
        restored = lab.restore(lab.open().find(each["volume"]))
        assert restored.read_bytes() == Path(each["source"]).read_bytes()


def test_every_volume_that_fails_is_named(call: Call, lab: Lab, volumes: list[dict[str, t.Any]]) -> None:
    options = {"volumes": volumes, "run_id": "run", "level": 99, **MOMENT}
    result = call(block_backup, **options)
    assert result["failed"] and not result["changed"] and result["savesets"] == []
    assert [problem["volume"] for problem in result["problems"]] == [each["volume"] for each in volumes]
    assert all(f"Backup of volume {each['volume']}: level 99: " in result["msg"] for each in volumes)
    assert lab.open().savesets() == []


def test_a_volume_without_a_source_fails_alone(call: Call, lab: Lab, volumes: list[dict[str, t.Any]]) -> None:
    volumes[1].update(source="", problem="its LUN was not mapped", host="storage1")
    result = call(block_backup, volumes=volumes, run_id="run", **MOMENT)
    assert result["failed"] and result["msg"] == "Backup of volume fs1/data: its LUN was not mapped"
    assert [saveset["volume"] for saveset in result["savesets"]] == ["fs1/m", "fs1/empty"]


def test_the_parent_of_each(call: Call, lab: Lab, volumes: list[dict[str, t.Any]]) -> None:
    first = call(block_backup, volumes=volumes, run_id="one", **MOMENT)["savesets"]
    volumes[0]["parent"] = first[0]["id"]
    volumes[1]["parent"] = ""
    later = {**MOMENT, "consistency_point": "2026-03-01T13:00:00+00:00"}
    assert "failed" not in call(block_backup, volumes=volumes, run_id="two", **later)
    parents = [lab.open().find(each["volume"]).info.parent for each in volumes]
    assert parents == [first[0]["id"], None, first[2]["id"]]


KEY = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("wrong", "psks", "said"),
    [
        ({"changes": {"since": "x", "extents": "nonsense"}}, {}, "volume fs1/empty: changes: "),
        ({"host": "storage1"}, {}, "volume fs1/empty: source: "),
        ({"volume": "fs1/m"}, {}, "volumes: volume 'fs1/m': it is named twice"),
        ({"volume": "fs1/M"}, {}, "volumes: volume 'fs1/M': it differs from 'fs1/m' in case alone"),
        ({"volume": "fs1/../m"}, {}, "volumes: volume id 'fs1/../m': "),
        ({}, {"fs1/empty": KEY}, "volume fs1/empty: psk: it is not 64 hex digits, or source has no nbds://"),
        ({"source": "nbds://openisb@h:1/x"}, {"fs1/empty": "x\nroot:y"}, "volume fs1/empty: psk: "),
        ({}, {"fs1/other": KEY}, "psks: there is a key of 'fs1/other', which is none of the volumes"),
    ],
)
def test_what_cannot_be_right_is_refused_before_anything_is_read(
    call: Call, lab: Lab, volumes: list[dict[str, t.Any]], wrong: dict[str, t.Any], psks: dict[str, str], said: str
) -> None:
    volumes[2].update(wrong)
    result = call(block_backup, volumes=volumes, psks=psks, run_id="run", **MOMENT)
    assert result["failed"] and result["msg"].startswith(said), result["msg"]
    assert not any(key in json.dumps(result) for key in psks.values())
    assert not (lab.folder / "run").exists() and lab.open().savesets() == []
    assert call(block_backup, volumes=[], run_id="run", **MOMENT)["msg"].startswith("volumes: there is none")


def test_the_job_records_how_far_each_volume_is(
    call: Call, volumes: list[dict[str, t.Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[dict[str, t.Any]] = []

    def tell(_job: jobs.Job, state: str, progress: dict[str, t.Any] | None = None) -> None:
        seen.append({"state": state, **(progress or {})})

    monkeypatch.setattr(jobs.Job, "tell", tell)
    call(block_backup, volumes=volumes, run_id="run", **MOMENT)
    told = [record for record in seen if "parts" in record]
    assert told and [record["state"] for record in (seen[0], told[-1], seen[-1])] == ["waiting", "running", "finished"]
    assert [part["label"] for part in told[-1]["parts"]] == ["m", "data", "empty"]
    for name in ("bytes_done", "bytes_total"):
        assert told[-1][name] == sum(part[name] for part in told[-1]["parts"])
    assert told[-1]["bytes_total"] == sum(Path(each["source"]).stat().st_size for each in volumes)
    assert set(told[-1]["parts"][0]) == {"label", "state", "percent", "bytes_done", "bytes_total", "rate", "eta_s"}


def test_a_backup_that_waits_has_not_opened_the_repository(
    call: Call, lab: Lab, mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred may wait, and opening takes the memory that makes guessing the passphrase expensive."""
    order = []

    @contextlib.contextmanager
    def slot(*_: t.Any) -> t.Iterator[None]:
        order.append("slot")
        yield
        order.append("free")

    def opening(module: t.Any) -> t.Any:
        order.append("open")
        return open_repository(module)

    open_repository = block_backup.open_repository
    monkeypatch.setattr(block_backup, "slot", slot)
    monkeypatch.setattr(block_backup, "open_repository", opening)
    options = {"volumes": [{"volume": "fs1/m", "source": str(mixed)}], "run_id": "one", **MOMENT}
    assert call(block_backup, **options)["changed"]
    assert not call(block_backup, **options)["changed"]  # the saveset is there
    assert order == ["slot", "open", "free"] * 2
    assert not call(block_backup, check_mode=True, **options)["changed"]
    assert order[6:] == ["slot", "open", "free"]  # of a folder without slots


def test_restoring_twice_changes_once(call: Call, lab: Lab, mixed: Path) -> None:
    saveset = lab.backup(mixed)
    output = lab.folder / "output"
    options = {"volume": "fs1/m", "target": str(output), "only_changed": True, "check": True}
    assert call(block_restore, check_mode=True, **options)["changed"] and not output.exists()
    first = call(block_restore, **options)
    assert first["changed"] and first["stats"]["bytes_checked"] == saveset.size
    second = call(block_restore, **options)
    assert not second["changed"] and second["stats"]["bytes_kept"] == saveset.size
    assert output.read_bytes() == mixed.read_bytes()


def test_a_base_is_used_as_far_as_it_can_be_relied_on(call: Call, lab: Lab, mixed: Path) -> None:
    first = lab.backup(mixed)
    output = lab.restore(first)
    write(mixed, 0, text(1000, 7))
    second = lab.backup(mixed)
    options = {"volume": "fs1/m", "target": str(output), "only_changed": True}
    result = call(block_restore, base=first.id, overwrite=[f"{output}:{first.size}"], **options)
    assert result["base"] == {"saveset": first.id, "reason": ""} and result["stats"]["bytes_compared"] == 0
    assert output.read_bytes() == mixed.read_bytes()
    for base, reason in [
        (first.id, f"a sample shows that the target no longer holds saveset {first.id}"),
        ("0" * 32, f"saveset {'0' * 32}, which the target held, is no longer in the repository"),
    ]:
        result = call(block_restore, base=base, **options)
        assert result["base"] == {"saveset": "", "reason": reason} and result["stats"]["bytes_compared"] == second.size
    write(mixed, second.size, text(MIB))
    output.write_bytes(output.read_bytes() + bytes(MIB))
    lab.backup(mixed)
    result = call(block_restore, base=second.id, overwrite=[f"{output}:{output.stat().st_size}"], **options)
    assert result["base"] == {"saveset": "", "reason": "the volume had another size"}
    assert output.read_bytes() == mixed.read_bytes()


def test_what_a_target_holds_is_not_written_over(call: Call, lab: Lab, mixed: Path) -> None:
    """What a restore has written is, until somebody writes to it, or wants another volume there."""
    saveset = lab.backup(mixed)
    lab.backup(mixed, volume="fs2/m")
    output = lab.folder / "output"
    output.write_bytes(b"precious" * 1000)
    options = {"volume": "fs1/m", "target": str(output)}
    refused = call(block_restore, **options)
    assert refused["msg"].endswith(f"name it by its identity: -e restore_overwrite={output}:8000")
    assert output.read_bytes() == b"precious" * 1000
    assert call(block_restore, overwrite=[f"{output}:8000"], **options)["changed"]
    assert output.read_bytes() == mixed.read_bytes()
    assert "msg" not in call(block_restore, **options)
    assert "which would be lost" in call(block_restore, **{**options, "volume": "fs2/m"})["msg"]
    write(output, 100, b"in use by now")
    assert "which would be lost" in call(block_restore, only_changed=True, **options)["msg"]
    assert saveset.size == output.stat().st_size


def test_a_standby_on_the_backup_server_gets_what_differs(call: Call, lab: Lab, mixed: Path) -> None:
    first = lab.backup(mixed)
    options = {"volume": "fs1/m", "target": str(lab.folder / "standby"), "purpose": "standby", "only_changed": True}
    whole = call(block_restore, **options)
    assert whole["base"] == {"saveset": "", "reason": "nothing is on record of what it holds"}
    write(mixed, 0, text(1000, 7))
    second = lab.backup(mixed)
    change = call(block_restore, **options)
    assert change["base"] == {"saveset": first.id, "reason": ""}
    assert 0 < change["stats"]["bytes_written"] < MIB and change["stats"]["bytes_compared"] == 0
    assert (lab.folder / "standby").read_bytes() == mixed.read_bytes()
    write(lab.folder / "standby", MIB, b"by somebody else")
    repaired = call(block_restore, **options)
    assert repaired["base"] == {"saveset": "", "reason": "it was written to since"}
    assert (lab.folder / "standby").read_bytes() == mixed.read_bytes()
    assert call(block_restore, reread=True, **options)["stats"]["bytes_compared"] == second.size


def test_a_restore_that_failed_is_taken_up_without_naming(call: Call, lab: Lab, mixed: Path) -> None:
    """Its target is on record as incomplete, and nobody has written to it since; else it has to be named."""
    saveset = lab.backup(mixed)
    (pack,) = saveset.map.packs()
    path = lab.path / "packs" / pack.hex()[:2] / pack.hex()
    whole = path.read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    output = lab.folder / "output"
    options = {"volume": "fs1/m", "target": str(output), "only_changed": True, "workers": 1}
    path.write_bytes(damaged)
    assert call(block_restore, **options)["failed"] and output.stat().st_blocks
    path.write_bytes(whole)
    assert call(block_restore, **options)["stats"]["bytes_kept"] > 0
    assert output.read_bytes() == mixed.read_bytes()

    output.unlink()
    path.write_bytes(damaged)
    assert call(block_restore, **options)["failed"]
    path.write_bytes(whole)
    write(output, 0, b"used for something else")
    assert "which would be lost" in call(block_restore, **options)["msg"]


def test_verifying_by_age(call: Call, lab: Lab, savesets: list[t.Any]) -> None:
    assert "failed" not in call(saveset_verify, check_mode=True) and lab.files("checks") == []
    part = call(saveset_verify, limit_bytes=1)
    assert 0 < part["bytes_verified"] < part["bytes_total"] and part["oldest"] == ""
    rest = call(saveset_verify, older_than=28)
    assert rest["bytes_verified"] == rest["bytes_total"] > rest["bytes"] > 0 and rest["oldest"]
    assert call(saveset_verify, older_than=28)["bytes"] == 0
    assert call(saveset_verify)["bytes"] > rest["bytes"]


@pytest.mark.parametrize("options", [{}, {"servers": ["fs1"]}, {"run_id": "run-1"}])
def test_damaged_commits_are_told(call: Call, lab: Lab, savesets: list[t.Any], options: dict[str, t.Any]) -> None:
    """A commit that cannot be read is in no list of savesets, and must not be passed over in silence."""
    path = lab.path / savesets[0].info.name
    path.write_bytes(path.read_bytes()[:-20])
    result = call(saveset_verify, **options)
    assert result["failed"] and [problem["object"] for problem in result["problems"]] == [savesets[0].info.name]
    assert "failed" not in call(saveset_verify, servers=["fs2"])


def test_damage_names_the_savesets_that_it_hurts(call: Call, lab: Lab, savesets: list[t.Any]) -> None:
    (pack,) = savesets[1].map.packs()
    path = lab.path / "packs" / pack.hex()[:2] / pack.hex()
    content = bytearray(path.read_bytes())
    content[1000] ^= 1
    path.write_bytes(content)
    result = call(saveset_verify)
    assert result["failed"] and f"{savesets[1].id} of volume fs2/m" in result["msg"]
    assert savesets[0].id not in result["msg"]


def test_nothing_to_verify(call: Call, savesets: list[t.Any]) -> None:
    assert "no saveset to verify" in call(saveset_verify, servers=["fs9"])["msg"]


def test_one_of_several_names_is_misspelt(call: Call, savesets: list[t.Any]) -> None:
    """All others are found, so that it would be believed to be proven, too."""
    result = call(saveset_verify, servers=["fs1", "fs9"])
    assert result["failed"] and "There is no saveset to verify of fs9: correct" in result["msg"]
