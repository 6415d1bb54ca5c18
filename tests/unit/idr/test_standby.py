# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is on record of a standby holds until somebody writes to it, by whatever way."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.luns import standbys
from ansible_collections.openisb.backup.plugins.module_utils.luns.standbys import Standby

CONTENT = {"volume": "fs1/m", "run_id": "isb-20261123T021500Z-4f1c2a", "saveset": "5f0c6a1b"}
NOTHING = dict.fromkeys(CONTENT, "")
MIB = 1024**2


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "standby.img"
    path.write_bytes(os.urandom(MIB))
    return path


@pytest.fixture
def device(image: Path) -> Iterator[Path]:
    made = subprocess.run(["losetup", "--find", "--show", image], check=True, capture_output=True, text=True)
    yield Path(made.stdout.strip())
    subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


def standby(tmp_path: Path, path: Path) -> Standby:
    return Standby(str(tmp_path / "state"), str(path))


def overwrite(path: Path) -> None:
    with path.open("r+b", buffering=0) as stream:
        stream.write(b"damaged")
        os.fsync(stream.fileno())


def test_a_record_comes_and_goes(tmp_path: Path, image: Path) -> None:
    of = standby(tmp_path, image)
    assert of.held() == {**NOTHING, "reason": "nothing is on record of what it holds"}
    assert of.forget() is False
    of.remember(**CONTENT)
    assert of.held() == {**CONTENT, "reason": ""}
    (tmp_path / "link").symlink_to(image)
    assert standby(tmp_path, tmp_path / "link").held() == {**CONTENT, "reason": ""}
    assert of.forget() is True
    assert of.held()["reason"] == "nothing is on record of what it holds"


def truncated(path: Path) -> None:
    os.truncate(path, MIB // 2)


def replaced(path: Path) -> None:
    path.with_name("new").write_bytes(path.read_bytes())
    path.with_name("new").replace(path)


def mapped(path: Path) -> None:
    import mmap

    with path.open("r+b") as stream, mmap.mmap(stream.fileno(), 0) as memory:
        memory[:1] = b"!"
        memory.flush()


OTHER = "it is another disk or file, or has another size"
WAYS = [
    (overwrite, "it was written to since"),
    (mapped, "it was written to since"),
    (truncated, OTHER),
    (replaced, OTHER),
]


@pytest.mark.parametrize(("write", "reason"), WAYS)
def test_a_file_that_somebody_wrote_to(tmp_path: Path, image: Path, write: Callable[[Path], None], reason: str) -> None:
    of = standby(tmp_path, image)
    of.remember(**CONTENT)
    write(image)
    assert of.held() == {**NOTHING, "reason": reason}


def test_a_file_that_is_gone(tmp_path: Path, image: Path) -> None:
    of = standby(tmp_path, image)
    of.remember(**CONTENT)
    image.unlink()
    assert of.held() == {**NOTHING, "reason": "it cannot be examined: No such file or directory"}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_record_that_cannot_be_read_is_none(tmp_path: Path, image: Path, text: str) -> None:
    of = standby(tmp_path, image)
    of.remember(**CONTENT)
    (record,) = (tmp_path / "state/standby").iterdir()
    record.write_text(text)
    assert of.held() == {**NOTHING, "reason": "nothing is on record of what it holds"}


@pytest.mark.root
def test_a_device(tmp_path: Path, device: Path) -> None:
    of = standby(tmp_path, device)
    of.remember(**CONTENT)
    assert device.read_bytes()
    assert of.held() == {**CONTENT, "reason": ""}
    overwrite(device)
    assert of.held() == {**NOTHING, "reason": "it was written to since"}
    of.remember(**CONTENT)
    subprocess.run(["blkdiscard", "--offset", "0", "--length", "65536", device], check=True)
    assert of.held() == {**NOTHING, "reason": "it was written to since"}


@pytest.mark.root
def test_a_host_that_was_started_anew(tmp_path: Path, device: Path) -> None:
    """Its kernel counts from nothing again."""
    of = standby(tmp_path, device)
    of.remember(**CONTENT)
    (path,) = (tmp_path / "state/standby").iterdir()
    record = json.loads(path.read_text())
    record["witness"]["boot"] = "of an earlier start"
    path.write_text(json.dumps(record))
    assert of.held() == {**NOTHING, "reason": "its host was rebooted since, or it is another disk"}


def test_nothing_vouches_for_what_was_never_put_on_record(
    tmp_path: Path, image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A record that could not be written whole is none, and the one before stays away, as it was forgotten."""
    of = standby(tmp_path, image)
    of.remember(**CONTENT)
    of.forget()

    def fail(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standbys.os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        of.remember(**CONTENT)
    assert of.held()["reason"] == "nothing is on record of what it holds"
