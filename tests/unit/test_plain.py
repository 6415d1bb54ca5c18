# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts of strangers are told so that nothing obeys them."""

from __future__ import annotations

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host.plain import plain, plain_all


@pytest.mark.parametrize("text", ["", "/srv/m/mumps.dat", "Befund – größer", "病院", "😀", "a b", "\\x1b"])
def test_what_is_plain_stays(text: str) -> None:
    assert plain(text) == text


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a\x1b[2J\x07", "a\\x1b[2J\\x07"),
        ("a\r\n\tb\x7f", "a\\r\\n\\tb\\x7f"),
        ("ä\x9b31m\x85", "ä\\x9b31m\\x85"),
        ("a\u202egpj\u2066\u200b\ufeff", "a\\u202egpj\\u2066\\u200b\\ufeff"),
        ("a\u2028b\u2029", "a\\u2028b\\u2029"),
        ("a\udcffb\ud800", "a\\xffb\\ud800"),
        ("\U000e0041", "\\U000e0041"),
    ],
)
def test_what_is_obeyed_is_written_out(text: str, told: str) -> None:
    assert plain(text) == told
    assert plain(plain(text)) == told
    assert plain(text).encode()


def test_lines_may_stay() -> None:
    assert plain("a\n\tb\r\x00", "\n\t") == "a\n\tb\\r\\x00"
    assert plain("ä\n\x00", "\n") == "ä\n\\x00"


def test_all_texts_of_a_document() -> None:
    document = {"a\x1b": [("b\x1b", 1, None, True), {"c": "d\ne"}], "f": 1.5}
    told = {"a\\x1b": [["b\\x1b", 1, None, True], {"c": "d\ne"}], "f": 1.5}
    assert plain_all(document, "\n") == told
