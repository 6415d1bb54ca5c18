# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The command line, the order of turns, the measuring of a process, and the limit."""

from __future__ import annotations

from pathlib import Path

import pytest
from bench import measure, primitives, rounds, run
from bench.ours import Ours, OursCompact
from bench.peers import PEERS


@pytest.mark.parametrize(("text", "size"), [("4G", 4 << 30), ("512M", 512 << 20), ("1t", 1 << 40), ("64MiB", 64 << 20)])
def test_sizes(text: str, size: int) -> None:
    assert run.parse_size(text) == size


@pytest.mark.parametrize("text", ["", "G", "4X", "-1G", "1.5G"])
def test_wrong_sizes_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="size"):
        run.parse_size(text)


def test_peers() -> None:
    assert run.parse_peers("") == list(PEERS)
    assert run.parse_peers("borg, restic") == ["borg", "restic"]
    with pytest.raises(ValueError, match="kopia"):
        run.parse_peers("kopia")


def test_every_contender_is_first_and_last_at_some_time(tmp_path: Path) -> None:
    contenders = [kind(tmp_path, tmp_path) for kind in (Ours, OursCompact, *PEERS.values())]
    orders = [rounds.turns(contenders, number) for number in range(2 * len(contenders))]
    assert {order[0] for order in orders} == {order[-1] for order in orders} == set(contenders)
    assert all(sorted(map(id, order)) == sorted(map(id, contenders)) for order in orders)
    assert orders[1] == orders[0][::-1]


def test_a_process_is_measured_with_its_children(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_bytes(bytes(5 << 20))
    usage = measure.run(f"cat {data} | wc -c", {}, tmp_path / "log")
    assert (tmp_path / "log").read_text().strip() == str(5 << 20)
    assert usage.read_bytes >= 10 << 20  # read by cat, and by wc
    assert usage.peak_bytes > 0
    assert usage.wall_s > 0


def test_a_failing_command_is_told_with_its_output(tmp_path: Path) -> None:
    with pytest.raises(measure.ContenderError, match="(?s)ended with 3.*no such thing"):
        measure.run("echo no such thing; exit 3", {}, tmp_path / "log")


def test_a_command_that_fails_in_a_pipe_is_no_success(tmp_path: Path) -> None:
    with pytest.raises(measure.ContenderError):
        measure.run("false | cat", {}, tmp_path / "log")


def test_fill_writes_all_of_the_target(tmp_path: Path) -> None:
    target = tmp_path / "target"
    rounds.fill(target, (9 << 20) + 5)
    first = target.read_bytes()
    assert len(first) == (9 << 20) + 5
    assert target.stat().st_blocks * 512 >= 9 << 20
    rounds.fill(target, (9 << 20) + 5)
    assert target.read_bytes() != first


def test_the_limit_is_the_key_and_the_longer_of_work_and_writing() -> None:
    stages = {"compress": primitives.Stage(100, 4.0), "write": primitives.Stage(50, 1.0, 2.0)}
    # Two threads share 5 s of work, which covers the 2 s that writing takes by itself.
    assert primitives.limit_seconds(stages, 0.5) == 3.0
    assert primitives.limit_seconds({**stages, "write": primitives.Stage(50, 1.0, 9.0)}, 0.5) == 9.5


def test_primitives_count_the_bytes_of_each_stage(tmp_path: Path) -> None:
    image = tmp_path / "image"
    mib = 1 << 20
    with open(image, "wb") as file:
        file.write(b"abcd" * (mib // 4))  # data
        file.write(bytes(mib))  # zeros
        file.truncate(16 * mib)  # holes
    stages = primitives.measure(image, tmp_path, 1)
    assert stages["read"].bytes == stages["zero_test"].bytes == 2 * mib
    assert stages["hash"].bytes == stages["compress"].bytes == mib
    assert 0 < stages["encrypt"].bytes < mib // 100
    assert 0 <= stages["write"].bytes - stages["encrypt"].bytes < 4 * mib  # whole blocks
    assert all(stage.thread_seconds > 0 for stage in stages.values())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image"]
