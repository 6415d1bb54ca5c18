# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""isb-saveset restore: writing only what differs, reading back, and a restore that was killed."""

from __future__ import annotations

import filecmp
import json
import re
import signal
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import target

from .conftest import KIB, MIB, Cli, Lab, MakeImage, noise, text, write


def named(path: Path) -> str:
    """The identity of a file."""
    return f"{path}:{path.stat().st_size}"


@pytest.fixture
def reverted(lab: Lab, mixed: Path) -> tuple[Path, Path]:
    """A volume as it was backed up, and a target that has changed in two chunks since."""
    path = lab.restore(lab.backup(mixed))
    write(path, 200 * KIB, noise(100))
    write(path, 3 * MIB + 100, b"not zero")
    return mixed, path


def test_a_fast_revert_writes_only_what_differs(cli: Cli, reverted: tuple[Path, Path]) -> None:
    image, path = reverted
    refused = cli("restore", "fs1/m", path, "--only-changed")
    assert refused.status == 1 and f"--overwrite {named(path)}" in refused.err
    status, out, _err = cli("restore", "fs1/m", path, "--only-changed", "--overwrite", named(path))
    assert status == 0 and filecmp.cmp(image, path, shallow=False)
    assert re.search(
        r"of which 64\.0 KiB data, 64\.0 KiB holes and zeros, 5\.9 MiB that were right already$", out, re.MULTILINE
    )


def test_what_was_written_is_read_back_when_asked(cli: Cli, reverted: tuple[Path, Path], tmp_path: Path) -> None:
    image, path = reverted
    status, out, _err = cli("restore", "fs1/m", path, "--overwrite", named(path), "--check")
    assert status == 0 and out.endswith(" holes and zeros; all of it was read back and compared\n")
    told = json.loads(cli("restore", "fs1/m", tmp_path / "new", "--only-changed", "--check", "--json").out)
    size = image.stat().st_size
    assert told["stats"]["bytes_checked"] == told["stats"]["bytes_size"] == told["saveset"]["size"] == size
    assert told["stats"]["bytes_compared"] == 0 and told["target"] == str(tmp_path / "new")
    assert filecmp.cmp(image, path, shallow=False) and filecmp.cmp(image, tmp_path / "new", shallow=False)


def test_a_disk_that_gives_back_something_else_is_found_out(
    cli: Cli, reverted: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the last write and the first read back a byte of the target turns over."""
    image, path = reverted
    forget = target.FileTarget.forget

    def turn_over(opened: target.FileTarget) -> None:
        write(path, MIB + 100, bytes([image.read_bytes()[MIB + 100] ^ 1]))
        forget(opened)

    monkeypatch.setattr(target.FileTarget, "forget", turn_over)
    status, out, err = cli("restore", "fs1/m", path, "--overwrite", named(path), "--check")
    assert (status, out) == (1, "")
    assert f"what is read back from the chunk at offset {MIB} is not what was written" in err


def kill_in_the_middle(command: t.Sequence[str], path: Path, begun: int) -> bool:
    """Run a restore, and kill -9 it as soon as ``begun`` bytes are on the target; whether it had not ended before."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while process.poll() is None and (not path.exists() or path.stat().st_blocks * 512 < begun):
        assert time.monotonic() < deadline
        time.sleep(0.0005)
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL


def test_a_killed_restore_is_taken_up_where_it_was(cli: Cli, lab: Lab, make_image: MakeImage, tmp_path: Path) -> None:
    """By the same command with --only-changed: what is on the target stays, the rest is written."""
    size = 64 * MIB
    image = make_image("large", size, [(0, noise(size // 2)), (size // 2, text(size // 4))])
    lab.backup(image)
    path = tmp_path / "target"
    command = [sys.executable, "-I", str(lab.path / "isb-saveset.pyz"), "restore", "fs1/m", str(path)]
    for _try in range(5):  # on a busy machine it may end before it is killed
        path.unlink(missing_ok=True)
        if kill_in_the_middle([*command, "--workers", "1"], path, begun=8 * MIB):
            break
    else:
        raise AssertionError("every restore ended before it was killed")
    assert path.stat().st_size == size and not filecmp.cmp(image, path, shallow=False)

    assert "which would be lost" in cli("restore", "fs1/m", path, "--only-changed").err
    again = ["restore", "fs1/m", path, "--overwrite", named(path), "--only-changed", "--json"]
    stats = json.loads(cli(*again, "--check").out)["stats"]
    assert filecmp.cmp(image, path, shallow=False)
    assert stats["bytes_written"] + stats["bytes_zeroed"] + stats["bytes_kept"] == size
    assert stats["bytes_kept"] >= 4 * MIB and stats["bytes_written"] > 0
    assert stats["bytes_stored"] <= stats["bytes_written"] + 2 * MIB  # what was right was not even read
    done = json.loads(cli(*again).out)["stats"]
    assert (done["bytes_written"], done["bytes_kept"]) == (0, size)
