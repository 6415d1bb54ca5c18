# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Running one function over many items in a few threads, with progress told in the caller's thread."""

from __future__ import annotations

import threading
import typing as t

_TICK_S = 0.5

Item = t.TypeVar("Item")


def run_parallel(
    items: t.Iterable[Item],
    function: t.Callable[[Item], None],
    workers: int,
    tick: t.Callable[[], None] | None = None,
) -> None:
    """Call ``function`` for every item, in about the items' order; the first error stops all and is raised.

    :param tick: called every half second, and once at the end, in this thread; what it raises stops the work.
    """
    iterator = iter(items)
    lock = threading.Lock()
    stop = threading.Event()
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
