# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The names that objects may have, in the code and in the document."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import names

from ..conftest import KIB, MIB
from .objects import BAD, GOOD


def test_every_kind_of_object_has_its_names() -> None:
    kinds = [names.kind_of(name) for name in sorted(GOOD)]
    assert len(set(kinds)) == len(kinds) == len(GOOD)
    for name in GOOD:
        folder = name.rpartition("/")[0]
        assert not folder or names.is_folder(folder)


def test_the_document_has_the_same_table() -> None:
    """docs/saveset-format.md tells each name and size as the engine takes it."""
    page = (Path(__file__).resolve().parents[4] / "docs" / "saveset-format.md").read_text()
    page = page.partition("### Names")[2].partition("### Terms")[0]
    part = "[A-Za-z0-9][A-Za-z0-9._@+-]{0,99}"
    words = {"VOLUME": f"(?![^/]{{201}}){part}(?:~{part}){{0,7}}", "ID": "[0-9a-f]{32}"}
    units = {"KiB": KIB, "MiB": MIB}
    rows = re.findall(r"^\| `(\S+)` \| (?:(in parts)|([0-9]+)(?: ([KM]iB))?) \|$", page, re.MULTILINE)
    told = {}
    for pattern, in_parts, count, unit in rows:
        for word, meaning in words.items():
            pattern = re.sub(rf"\b{word}\b", lambda _match, text=meaning: text, pattern)
        told[pattern] = None if in_parts else int(count) * units.get(unit, 1)
    assert f"`{part}`" in page and len(told) == len(GOOD)
    for name in [*GOOD, *BAD]:
        found = [size for pattern, size in told.items() if re.fullmatch(pattern, name)]
        kind = names.find_kind(name)
        assert found == ([kind.max_bytes] if kind else []), name
