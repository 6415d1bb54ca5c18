# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every quiesce driver is: its options, and how it freezes, thaws and tells of it."""

from __future__ import annotations

import threading
from typing import Any, Callable, ClassVar, NamedTuple

from ..errors import DriverError, OptionError


class Option(NamedTuple):
    """One option of a driver.

    ``kind``: str, path, number, bool, list (of texts), dict (of texts), command (a list that begins with a path),
    statuses (a list of exit statuses) or items (a list, whose items whoever asked for them checks).
    """

    kind: str
    help: str
    required: bool = False
    default: Any = None


class Surroundings(NamedTuple):
    """What a check needs to know beyond the driver itself.

    ``paths`` are files and folders that the holder and all drivers of the hold use while the hold lasts: path -> what
    it is for.
    """

    paths: dict[str, str]


TIMEOUT = Option("number", "Seconds that one freeze or thaw may take.", default=10)


class Driver:
    """Base of the drivers.

    The holder calls ``check`` and ``prepare`` before anything is frozen, then ``freeze`` once, then ``thaw`` until it
    succeeds. ``freeze`` and ``thaw`` run in threads, and ``thaw`` may run while a ``freeze`` that was given up still
    does. ``marks`` is what the driver may have frozen, as JSON: it is recorded outside the process *before* each step,
    so that another process can thaw after this one died. A driver that keeps a session open instead leaves marks by
    which others know the session, and its freeze ends with the process.

    After a freeze ``degraded`` says what of it is less than whole though the site lets it pass, and ``without`` names
    the servers that a driver for many servers could not freeze.
    """

    name: ClassVar[str]
    options: ClassVar[dict[str, Option]] = {}
    run_id = ""
    """The run that the hold belongs to; empty where there is none, as in a check."""

    def __init__(self, values: dict[str, Any], marks: dict[str, Any] | None = None) -> None:
        self.values = values
        self.timeout = float(values["timeout"])
        self.marks: dict[str, Any] = dict(marks or {})
        self.findings: dict[str, Any] = {}
        """What the check has found and must still be so when it comes to the freeze, as JSON."""
        self.result: dict[str, Any] = {}
        """What the hold's answers tell of this driver beyond times, as JSON."""
        self.degraded: list[str] = []
        self.without: list[str] = []
        self.cancelled = threading.Event()
        self._note: Callable[[], None] = lambda: None
        self._lock = threading.Lock()

    def on_marks(self, note: Callable[[], None]) -> None:
        """Have ``note`` called, and finished, whenever ``marks`` has changed and before the driver goes on."""
        self._note = note

    def paths(self) -> dict[str, str]:
        """Files and folders that must stay usable while the hold lasts: what each is for -> path."""
        return {}

    def patience(self) -> float:
        """Seconds that ``prepare`` may take."""
        return self.timeout

    def check(self, surroundings: Surroundings) -> str:
        """Whether a freeze would work; changes nothing. Returns what was found, in a few words. Raises DriverError."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Do what can be done before the freeze, in the holder itself: open sessions and descriptors."""

    def close(self) -> None:
        """Let go of what ``prepare`` opened, once nothing is frozen any more. The end of the process does so too."""

    def freeze(self) -> None:
        """Freeze, and return once it is proven. Raises DriverError; part of it may then be frozen."""
        raise NotImplementedError

    def thaw(self) -> list[str]:
        """End what ``marks`` tells of. Safe to repeat. Returns how the hold was broken meanwhile; empty: it was not.

        Raises DriverError where something is, or may be, still frozen.
        """
        raise NotImplementedError

    def lost(self) -> list[str]:
        """How the hold was broken since the freeze, as far as it can be told at once and without waiting."""
        return []

    def status(self) -> dict[str, Any]:
        """``{"frozen": bool or None}`` (None: it cannot be told), and what else the driver knows."""
        raise NotImplementedError

    def cancel(self) -> None:
        """Have a freeze that is still under way stop as soon as it can."""
        self.cancelled.set()

    def stop_if_cancelled(self) -> None:
        """Raise DriverError once the freeze was cancelled."""
        if self.cancelled.is_set():
            raise DriverError(f"{self.name}: the freeze was cancelled")

    def mark(self, key: str, value: Any) -> None:
        """Set one mark and have it recorded."""
        with self._lock:
            self.marks[key] = value
            self._note()

    def mark_item(self, key: str, item: Any, present: bool) -> None:
        """Put ``item`` into the list ``marks[key]``, or take it out, and have it recorded."""
        with self._lock:
            items = [entry for entry in self.marks.get(key, []) if entry != item]
            if present:
                items.append(item)
            if items:
                self.marks[key] = items
            else:
                self.marks.pop(key, None)
            self._note()

    def clear_marks(self) -> None:
        """Nothing is frozen any more."""
        with self._lock:
            self.marks.clear()
            self._note()


def check_options(driver: type[Driver], given: dict[str, Any]) -> dict[str, Any]:
    """The driver's options, complete with defaults and of the right types. Raises OptionError."""
    return complete(f"driver {driver.name}", {"timeout": TIMEOUT, **driver.options}, given)


def complete(whose: str, known: dict[str, Option], given: dict[str, Any]) -> dict[str, Any]:
    """The options of ``whose``, complete with defaults and of the right types. Raises OptionError."""
    unknown = sorted(set(given) - set(known) - {"name"})
    if unknown:
        raise OptionError(f"{whose} has no option '{unknown[0]}': it knows {', '.join(sorted(known))}")
    values = {}
    for name, option in known.items():
        value = given.get(name)
        if value is None and option.required:
            raise OptionError(f"{whose} needs the option '{name}': {option.help}")
        values[name] = _copy(option.default) if value is None else _convert(whose, name, option.kind, value)
    if values["timeout"] <= 0:
        raise OptionError(f"{whose}: 'timeout' must be more than 0 s")
    return values


def _copy(default: Any) -> Any:
    return type(default)(default) if isinstance(default, (list, dict)) else default


def _convert(whose: str, name: str, kind: str, value: Any) -> Any:
    try:
        return _CONVERTERS[kind](value)
    except (TypeError, ValueError) as error:
        raise OptionError(f"{whose}: '{name}' must be {_KINDS[kind]}, not {value!r}") from error


def _text(value: Any) -> str:
    if not isinstance(value, (str, int, float)) or isinstance(value, bool):
        raise TypeError
    return str(value)


def _path(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith("/"):
        raise ValueError
    return value


def _bool(value: Any) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if isinstance(value, bool):
        return value
    if str(value).lower() not in words:
        raise ValueError
    return words[str(value).lower()]


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError
    return float(value)


def _list(value: Any) -> list[str]:
    if isinstance(value, str):
        value = [item.strip() for item in value.split(",")]
    if not isinstance(value, list) or not value:
        raise TypeError
    return [_text(item) for item in value]


def _command(value: Any) -> list[str]:
    if not isinstance(value, list):
        raise TypeError
    arguments = _list(value)
    _path(arguments[0])
    return arguments


def _statuses(value: Any) -> list[int]:
    statuses = [int(item) for item in _list(value)]
    if not all(0 <= status <= 255 for status in statuses):
        raise ValueError
    return statuses


def _items(value: Any) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise TypeError
    return list(value)


def _dict(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TypeError
    return {_text(key): _text(item) for key, item in value.items()}


_CONVERTERS: dict[str, Callable[[Any], Any]] = {
    "str": _text,
    "path": _path,
    "number": _number,
    "bool": _bool,
    "list": _list,
    "dict": _dict,
    "command": _command,
    "statuses": _statuses,
    "items": _items,
}
_KINDS = {
    "str": "a text",
    "path": "an absolute path",
    "number": "a number",
    "bool": "true or false",
    "list": "a list of texts with at least one item",
    "dict": "a dictionary of texts",
    "command": "a list of texts that begins with the absolute path of a program",
    "statuses": "a list of exit statuses, from 0 to 255",
    "items": "a list with at least one item",
}
