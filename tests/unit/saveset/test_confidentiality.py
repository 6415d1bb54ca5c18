# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Nothing of what a volume holds can be read from a repository without its key."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .conftest import KIB, MIB, Lab, MakeImage

SECRET = random.Random(42).randbytes(32 * KIB)
"""Incompressible: compressing alone would not hide it."""


@pytest.mark.parametrize(("encryption", "readable"), [("aes-256-gcm", False), ("none", True)])
def test_content_is_read_with_the_key_alone(
    tmp_path: Path, make_image: MakeImage, encryption: str, readable: bool
) -> None:
    """As whole chunks, as pieces of chunks, beside zeros and beside text. That an unencrypted repository shows it
    proves that it would be seen."""
    lab = Lab(tmp_path, encryption=encryption)
    lab.backup(make_image("first", MIB, [(0, SECRET), (200 * KIB, b"text " * 1000 + SECRET)]))
    lab.backup(make_image("second", MIB, [(0, SECRET[:100] + b"changed" + SECRET[107:]), (500 * KIB, SECRET)]))
    stored = [path.read_bytes() for path in lab.files(".")]
    pieces = [SECRET[offset : offset + 16] for offset in range(0, len(SECRET), 512)]
    assert any(piece in content for piece in pieces for content in stored) is readable


def test_equal_content_is_named_differently_in_every_repository(tmp_path: Path, make_image: MakeImage) -> None:
    """Identities are keyed: who has two repositories cannot tell from their digests what both hold."""
    image = make_image("image", MIB, [(0, SECRET)])
    digests = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        digests.append(Lab(tmp_path / name).backup(image).info.digest)
    assert digests[0] != digests[1]
