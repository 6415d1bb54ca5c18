# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which store a location means."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import InvalidValue
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.local import LocalStore
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store.registry import STORES, open_store

from ..conftest import ID

PIN = f"pins/{ID}.json"


def test_a_path_or_its_url_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    LocalStore(str(tmp_path / "a folder")).put(PIN, b"data")
    for location in (
        "a folder",
        str(tmp_path / "a folder"),
        f"file://{tmp_path}/a%20folder",
        f"FILE://localhost{tmp_path}/a folder/",
    ):
        store = open_store(location)
        assert isinstance(store, LocalStore) and store.location == str(tmp_path / "a folder")
        assert store.get(PIN) == b"data"


def test_opening_touches_nothing(tmp_path: Path) -> None:
    open_store(str(tmp_path / "new"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("location", ["s3://bucket/folder", "ftp://host", "://", "/srv/a://b"])
def test_a_scheme_that_no_store_has_is_refused(location: str) -> None:
    with pytest.raises(InvalidValue) as raised:
        open_store(location)
    assert location in raised.value.thing and repr(location.partition("://")[0]) in raised.value.cause
    assert all(f"{scheme}://" in raised.value.way_out for scheme in STORES)


@pytest.mark.parametrize("location", ["file://", "file://server/share", "file:///srv?a=b", "file:///srv#a"])
def test_a_url_that_is_no_folder_of_this_host_is_refused(location: str) -> None:
    with pytest.raises(InvalidValue, match="folder of this host"):
        open_store(location)
