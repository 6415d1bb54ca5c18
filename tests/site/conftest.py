# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Folders for sites of the running lab."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from first_site import FirstSite


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a short path, as sockets of connections are in it."""
    path = Path(tempfile.mkdtemp(prefix="isb-", dir="/tmp"))
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def site(folder: Path, lab_dir: Path) -> FirstSite:
    """A site that runs from the checkout."""
    return FirstSite(folder, lab_dir.resolve(), Path(sys.executable).parent)
