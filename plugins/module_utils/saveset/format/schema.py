# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Validating values from a JSON text, with tables instead of code.

A check takes a value and raises ValueError, which says what is wrong and where; :mod:`.fields` combines checks for
each kind of document.
"""

from __future__ import annotations

import base64
import json
import math
import re
import typing as t

Check = t.Callable[[object], None]

#: How deeply the objects and lists of a text may be nested, and how many values it may have.
DEPTH_MAX = 64
VALUES_MAX = 1 << 20

_BRACKET = re.compile(r"[\[\]{}]")
#: Characters that control a terminal, break a line, change the direction of text, or cannot be encoded as UTF-8.
_UNPLAIN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


# -- reading a text


def parse(data: bytes, values: int = VALUES_MAX) -> t.Any:
    """The value of a JSON text in ASCII.  The cost of parsing is bounded beforehand.

    Raises ValueError: it is not JSON, is nested too deeply, has too many values, a duplicate name in one object, or a
    number that is not finite.
    """
    check_shape(data, values)
    return json.loads(
        data.decode("ascii"), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
    )


def check_shape(data: bytes, values: int = VALUES_MAX) -> None:
    """Raise ValueError unless a text is in ASCII and its depth and number of values are within the limits."""
    text = data.decode("ascii")
    opened = text.count("[") + text.count("{")
    if opened <= DEPTH_MAX and opened + text.count(",") <= values:
        return  # even if none of it is in strings
    quoted = text.replace("\\\\", "").replace('\\"', "")
    if quoted.count('"') > 4 * values + 4:  # two quotes each for a name and a text per value
        raise ValueError(f"it has more than {values} values")
    bare = "".join(quoted.split('"')[::2])  # what is not in strings
    if bare.count(",") + bare.count("[") + bare.count("{") > values:
        raise ValueError(f"it has more than {values} values")
    depth = 0
    for bracket in _BRACKET.finditer(bare):
        depth += 1 if bracket[0] in "[{" else -1
        if depth > DEPTH_MAX:
            raise ValueError(f"it is nested deeper than {DEPTH_MAX}")


def _object(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("an object has a duplicate name")
    return found


def _refuse_constant(word: str) -> t.NoReturn:
    raise ValueError(f"{word} is not a number")


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number[:20]} is out of range")
    return value


# -- checks


def integer(least: int, most: int) -> Check:
    """A whole number in a range, including both ends."""

    def check(value: object) -> None:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"it is {_kind(value)}, not a whole number")
        if not least <= value <= most:
            raise ValueError(f"it is not from {least} to {most}")

    return check


def number(value: object) -> None:
    """A number that is not negative and small enough for calculations."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"it is {_kind(value)}, not a number")
    if not 0 <= value < 1 << 64:
        raise ValueError("it is negative or too large")


def text(most: int = 4096, least: int = 0) -> Check:
    """Text of ``least`` to ``most`` characters that is safe to show: one line, without control characters."""
    inner = string(most, least)

    def check(value: object) -> None:
        inner(value)
        if isinstance(value, str) and _UNPLAIN.search(value):
            raise ValueError("it has characters that must not be shown")

    return check


def string(most: int, least: int = 0) -> Check:
    """Any text of ``least`` to ``most`` characters."""

    def check(value: object) -> None:
        if not isinstance(value, str):
            raise ValueError(f"it is {_kind(value)}, not text")
        if not least <= len(value) <= most:
            raise ValueError(f"it has {len(value)} characters, not {least} to {most}")

    return check


def matching(pattern: str, what: str) -> Check:
    """Text that a regular expression matches completely; ``what`` describes it for people."""
    compiled = re.compile(pattern)

    def check(value: object) -> None:
        if not isinstance(value, str) or not compiled.fullmatch(value):
            raise ValueError(f"it is not {what}")

    return check


def passing(test: t.Callable[[str], object], what: str) -> Check:
    """Text for which a test returns a true value and raises no ValueError; ``what`` describes it for people."""

    def check(value: object) -> None:
        try:
            if isinstance(value, str) and test(value):
                return
        except ValueError:
            pass
        raise ValueError(f"it is not {what}")

    return check


def base64_of(length: int) -> Check:
    """Base64 of a multiple of ``length`` bytes."""

    def check(value: object) -> None:
        if not isinstance(value, str) or len(base64.b64decode(value, validate=True)) % length:
            raise ValueError(f"it is not base64 of a multiple of {length} bytes")

    return check


def nullable(inner: Check) -> Check:
    """Null, or what another check accepts."""

    def check(value: object) -> None:
        if value is not None:
            inner(value)

    return check


def list_of(inner: Check) -> Check:
    """A list in which another check accepts every item."""

    def check(value: object) -> None:
        if not isinstance(value, list):
            raise ValueError(f"it is {_kind(value)}, not a list")
        for number, item in enumerate(value):
            _at(f"item {number}", inner, item)

    return check


def tuple_of(*inners: Check) -> Check:
    """A list with exactly one item for each of these checks."""

    def check(value: object) -> None:
        if not isinstance(value, list) or len(value) != len(inners):
            raise ValueError(f"it is not a list of {len(inners)}")
        for number, (inner, item) in enumerate(zip(inners, value, strict=True)):
            _at(f"item {number}", inner, item)

    return check


def map_of(key: Check, inner: Check) -> Check:
    """An object whose names one check accepts, and whose values another one accepts."""

    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"it is {_kind(value)}, not an object")
        for name, item in value.items():
            key(name)
            _at(name, inner, item)

    return check


def record(fields: t.Mapping[str, Check], optional: t.Mapping[str, Check] | None = None) -> Check:
    """An object with required and optional fields; other fields are ignored."""
    maybe = optional or {}

    def check(value: object) -> None:
        if not isinstance(value, dict):
            raise ValueError(f"it is {_kind(value)}, not an object")
        for name, inner in fields.items():
            if name not in value:
                raise ValueError(f"its field {name} is missing")
            _at(name, inner, value[name])
        for name, inner in maybe.items():
            if name in value:
                _at(name, inner, value[name])

    return check


def _at(where: str, check: Check, value: object) -> None:
    try:
        check(value)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _kind(value: object) -> str:
    return {type(None): "null", bool: "true or false", str: "text", list: "a list", dict: "an object"}.get(
        type(value), "a number"
    )
