# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of quiesce drivers and checks, as an inventory gives them: completed, and of the right types."""

from __future__ import annotations

from typing import Any, Callable, NamedTuple

from .errors import OptionError


class Option(NamedTuple):
    """One option of a driver.

    ``kind``: str, path, number, bool, list (of texts), dict (of texts), command (a list that begins with a path),
    statuses (a list of exit statuses) or items (a list, whose items the caller validates).
    """

    kind: str
    help: str
    required: bool = False
    default: Any = None


def complete(whose: str, known: dict[str, Option], given: dict[str, Any]) -> dict[str, Any]:
    """The options of ``whose``, validated and completed with defaults. Raises OptionError."""
    unknown = sorted(set(given) - set(known) - {"name"})
    if unknown:
        raise OptionError(f"{whose} has no option '{unknown[0]}': use one of {', '.join(sorted(known))}")
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
