# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What waits is done for several things at the same time."""

from __future__ import annotations

import threading

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.at_once import MOST, at_once


def test_all_are_worked_on_at_the_same_time_and_keep_their_order() -> None:
    meeting = threading.Barrier(MOST, timeout=30)

    def work(number: int) -> int:
        meeting.wait()
        return number * 2

    assert at_once(work, range(MOST)) == [number * 2 for number in range(MOST)]


def test_more_wait_until_others_have_ended() -> None:
    assert at_once(str, range(3 * MOST)) == [str(number) for number in range(3 * MOST)]
    assert at_once(str, []) == []


def test_an_error_is_raised_once_all_have_ended() -> None:
    ended = []

    def work(number: int) -> None:
        if not number:
            raise ValueError("the first one")
        ended.append(number)

    with pytest.raises(ValueError, match="the first one"):
        at_once(work, range(5))
    assert sorted(ended) == [1, 2, 3, 4]


def test_one_alone_needs_no_thread() -> None:
    assert at_once(lambda _item: threading.current_thread(), ["one"]) == [threading.current_thread()]
