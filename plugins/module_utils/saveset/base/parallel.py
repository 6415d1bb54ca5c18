# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How many threads work, and one function run over many items in them, with progress in the caller's thread."""

from __future__ import annotations

import os
import threading
import typing as t

_TICK_S = 0.5

Item = t.TypeVar("Item")


def default_workers() -> int:
    """How many workers a backup or a restore uses by default: two or three."""
    return min(3, max(2, len(os.sched_getaffinity(0))))


def run_parallel(
    items: t.Iterable[Item],
    function: t.Callable[[Item], None],
    workers: int,
    tick: t.Callable[[], None] | None = None,
    stop: threading.Event | None = None,
) -> None:
    """Call ``function`` for every item, roughly in order; the first error stops all threads and is raised.

    :param tick: called every half second, and once at the end, in this thread; an exception from it stops the work.
    :param stop: set as soon as the work ends, for whatever reason, so that ``function`` can wait for it.
    """
    iterator = iter(items)
    lock = threading.Lock()
    stop = stop or threading.Event()
    errors: list[BaseException] = []
    end = object()

    def work() -> None:
        try:
            while not stop.is_set():
                with lock:
                    item = next(iterator, end)
                if item is end:
                    return
                function(t.cast(Item, item))
        except BaseException as error:  # raised again in the caller's thread
            errors.append(error)
            stop.set()

    threads = [threading.Thread(target=work, name=f"saveset-{number}", daemon=True) for number in range(workers)]
    for thread in threads:
        thread.start()
    try:
        for thread in threads:
            while thread.is_alive():
                thread.join(_TICK_S if tick else None)
                if tick and thread.is_alive():
                    tick()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    if errors:
        raise errors[0]
    if tick:
        tick()
