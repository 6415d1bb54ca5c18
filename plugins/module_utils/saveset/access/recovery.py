# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The recovery sheet: the master key on paper, in groups that a person can type and that detect typos.

The key and 14 bits of its hash form nine numbers of 30 bits.  A number ``v`` is printed as ``v * 1021 + group``, eight
base-32 digits: the remainder modulo the prime 1021 must be the group's own number.  This detects every single wrong
character, every swap of two characters, groups in the wrong order, and all but one in 1,021 of other errors.
"""

from __future__ import annotations

import re
import textwrap

from ..base.deps import blake3
from ..base.errors import InvalidValue
from ..base.version import VERSION
from ..keys.keys import KEY_BYTES

GROUPS = 9
GROUP_CHARACTERS = 8
_GROUP_BITS = 30
_CHECK_BITS = GROUPS * _GROUP_BITS - 8 * KEY_BYTES
_PRIME = 1021
#: Crockford's base 32: no I, L, O or U; the first three are read as the digits that they look like.
_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LOOKALIKES = str.maketrans("OIL", "011")
_NUMBERED = re.compile(r"\b([1-9])[:.)][ \t]*(\S+)")

_SHEET = """\
OPENISB RECOVERY SHEET

Anyone who has this sheet and a copy of the repository can read every saveset
in it. Keep it on paper, locked away, in another place than the repository. Do
not store it in a file, and print it on a printer that keeps no copies.

Repository   {repository}
Location     {location}
Date         {date}
Program      isb-saveset.pyz {release}. This is its SHA-256:

    {sha256}

Recovery key: {groups} groups. It contains no letter I, L, O or U.

{key}

What to do if no passphrase and no private key opens the repository any more,
or if its folder "keys" is lost:

 1. Make the repository's folder, or a copy of it, available on a machine. Its
    file repo.json must show the id above. Work on a copy if you can.
 2. Get the program as /opt/isb-saveset.pyz: preferably the copy that was kept
    outside the repository, otherwise a copy of the one in the repository's
    folder. Anyone who could write to that folder could have replaced it with a
    program that steals the key. So verify it BEFORE you run it. This command
    must print the SHA-256 above:
      sha256sum /opt/isb-saveset.pyz
    If it prints another one, do not run the program. There is one exception: a
    copy that was kept outside the repository may be of a later version, and
    must then have the SHA-256 that was kept with it. The sources of version
    {release} of the collection openisb.backup build the program above ("make
    isb-saveset").
 3. Install what the program needs, with Python 3.11 or newer:
      python3 -m venv /opt/isb
      python3 /opt/isb-saveset.pyz requirements > /opt/requirements.txt
      /opt/isb/bin/pip install --require-hashes -r /opt/requirements.txt
    Without internet, add "--no-index --find-links" and the folder of wheels
    that was kept with the program.
 4. Type the groups above, with their numbers ("1: ...."), into a text file
    "sheet.txt". You may use small letters, and leave out the hyphens.
 5. Run this, with the repository's folder instead of /repo:
    /opt/isb/bin/python /opt/isb-saveset.pyz key add -r /repo \\
        --recovery-sheet sheet.txt
    and choose a new passphrase. If a group is mistyped, the program names it.
    It only writes one small file.
 6. Delete sheet.txt. Restore with the same program and the new passphrase. The
    program prints how: python3 /opt/isb-saveset.pyz readme
"""


def write_sheet(master: bytes, repository_id: str, location: str, date: str, sha256: str) -> str:
    """The text of a recovery sheet, with ``date`` printed as given and ``sha256`` of this version's isb-saveset.pyz."""
    groups = [f"{number}: {group[:4]}-{group[4:]}" for number, group in enumerate(encode_groups(master), 1)]
    lines = ["    " + "     ".join(groups[at : at + 3]) for at in range(0, GROUPS, 3)]
    location = "\n             ".join(textwrap.wrap(location, 66, break_on_hyphens=False))
    return _SHEET.format(
        repository=repository_id,
        location=location,
        date=date,
        release=VERSION,
        sha256=sha256,
        groups=GROUPS,
        key="\n\n".join(lines),
    )


def read_sheet(text: str) -> bytes:
    """The master key from a sheet, or from its groups alone, with or without their numbers.

    Raises InvalidValue, naming the wrong group if that can be determined.
    """
    return decode_groups(_find_groups(text))


def encode_groups(master: bytes) -> list[str]:
    """The master key as groups of characters."""
    value = int.from_bytes(master, "big") << _CHECK_BITS | _check(master)
    parts = [value >> _GROUP_BITS * (GROUPS - number) & (1 << _GROUP_BITS) - 1 for number in range(1, GROUPS + 1)]
    return [_to_text(part * _PRIME + number) for number, part in enumerate(parts, 1)]


def decode_groups(groups: list[str]) -> bytes:
    """The master key from its groups, in order.  Raises InvalidValue, naming all wrong groups."""
    if len(groups) != GROUPS:
        raise InvalidValue(
            "the recovery key", f"it has {len(groups)} groups, not {GROUPS}", "Type all of them, in order"
        )
    value = 0
    problems = []
    for number, text in enumerate(groups, 1):
        part, problem = _decode_group(number, text)
        value = value << _GROUP_BITS | part
        if problem:
            problems.append(f"group {number} {problem}")
    if problems:
        raise InvalidValue("the recovery key", "; ".join(problems), "Compare with the sheet, character by character")
    master = (value >> _CHECK_BITS).to_bytes(KEY_BYTES, "big")
    if value & (1 << _CHECK_BITS) - 1 != _check(master):
        raise InvalidValue(
            "the recovery key",
            "its checksum is wrong, although each group is valid",
            "Compare all groups with one sheet",
        )
    return master


def _find_groups(text: str) -> list[str]:
    """The groups in a text: those that follow the numbers 1 to 9, or else all words."""
    numbered = {int(match[1]): match[2] for match in _NUMBERED.finditer(_key_part(text))}
    if numbered:
        missing = [str(number) for number in range(1, GROUPS + 1) if number not in numbered]
        if missing:
            raise InvalidValue("the recovery key", f"group {', '.join(missing)} is missing", "Type all nine groups")
        return [numbered[number] for number in sorted(numbered)]
    return text.split()


def _key_part(text: str) -> str:
    """The part of a whole sheet with the key, because the steps are numbered too."""
    _before, found, after = text.partition("Recovery key:")
    return after.partition("What to do")[0] if found else text


def _decode_group(number: int, text: str) -> tuple[int, str]:
    """The number that a group represents, and what is wrong with the group."""
    digits = text.upper().replace("-", "").translate(_LOOKALIKES)
    strange = sorted(set(digits) - set(_ALPHABET))
    if strange:
        return 0, f"has a character that is never used ({' '.join(strange)})"
    if len(digits) != GROUP_CHARACTERS:
        return 0, f"has {len(digits)} characters, not {GROUP_CHARACTERS}"
    value = 0
    for digit in digits:
        value = value << 5 | _ALPHABET.index(digit)
    part, rest = divmod(value, _PRIME)
    if part >> _GROUP_BITS or rest != number:
        return 0, "is mistyped" + (f", or is group {rest}" if 1 <= rest <= GROUPS else "")
    return part, ""


def _to_text(value: int) -> str:
    return "".join(_ALPHABET[value >> 5 * place & 31] for place in reversed(range(GROUP_CHARACTERS)))


def _check(master: bytes) -> int:
    digest = blake3(b"openisb saveset 1 recovery" + master).digest()
    return int.from_bytes(digest[:2], "big") >> 16 - _CHECK_BITS
