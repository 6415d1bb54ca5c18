# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Volume ids such as ``fs1/m``, and the folder names made from them."""

from __future__ import annotations

import re
import typing as t
import unicodedata

from .errors import InvalidValue

_PART = r"[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}"
_VOLUME = re.compile(rf"{_PART}(?:/{_PART}){{0,7}}\Z")
_SEPARATOR = "~"  # not allowed in a volume id, so the folder name is unambiguous
_LENGTH_MAX = 200

#: The folder name of a volume, as a part of a regular expression for names of objects.
FOLDER = rf"(?![^/]{{{_LENGTH_MAX + 1}}}){_PART}(?:{_SEPARATOR}{_PART}){{0,7}}"


def check_volume(volume: str) -> str:
    """Return ``volume``; raises InvalidValue unless it is a valid volume id."""
    if len(volume) > _LENGTH_MAX or not _VOLUME.match(volume):
        raise InvalidValue(
            f"volume id {volume!r}",
            "a volume id is one or more parts of letters, digits and ._@+- that begin with a letter or digit, "
            f"joined by /, at most {_LENGTH_MAX} characters in all",
            "Name it like fs1/m",
        )
    return volume


def folded(name: str) -> str:
    """A form that is equal for names that a filesystem may not distinguish: by case or Unicode normalization."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def check_distinct(volumes: t.Iterable[str]) -> None:
    """Raise InvalidValue unless these are valid ids of different volumes; those that differ in case alone are not."""
    seen: dict[str, str] = {}
    for volume in volumes:
        other = seen.get(folded(check_volume(volume)))
        if other is not None:
            cause = "it is named twice" if other == volume else f"it differs from {other!r} in case alone"
            raise InvalidValue(f"volume {volume!r}", cause, "Name each volume of a job once")
        seen[folded(volume)] = volume


def check_part(name: str) -> str:
    """Return ``name``; raises InvalidValue unless it can be a part of a volume id, such as a server's name."""
    if "/" in name:
        raise InvalidValue(f"name {name!r}", "a part of a volume id has no /", "Name it like fs1")
    return check_volume(name)


def volume_folder(volume: str) -> str:
    """The folder name of a volume: ``fs1/m`` becomes ``fs1~m``."""
    return check_volume(volume).replace("/", _SEPARATOR)


def volume_of_folder(folder: str) -> str:
    """The volume id from which a folder name was made."""
    return check_volume(folder.replace(_SEPARATOR, "/"))
