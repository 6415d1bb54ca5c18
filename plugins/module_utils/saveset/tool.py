# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset.pyz``: this package and its command line as one file that Python runs.  Every repository carries it.

The same sources give the same bytes, so anybody can check a repository's copy against one built from the sources:
entries are sorted, bear one fixed time, and are not compressed, as compressors differ.

``python3 -m saveset.tool FILE`` writes it to a file.
"""

from __future__ import annotations

import io
import pkgutil
import sys
import types
import typing as t
import zipfile

from . import cli
from .errors import NotFound, SavesetError
from .readme import README
from .store import Store
from .version import VERSION

if t.TYPE_CHECKING:
    # Never imported here, for it imports us; but Ansible sends to a host only what is imported somewhere.
    from .cli import main  # noqa: F401

NAME = "isb-saveset.pyz"
README_NAME = "README.txt"

_ROOT = "saveset"
_TIME = (1980, 1, 1, 0, 0, 0)
_COMMENT = "isb-saveset "
_UNIX = 3

#: Understood by every Python, also by those that are too old for the rest.
_MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("isb-saveset: Python %d.%d: it is too old. Use Python 3.11 or newer, such as Debian 12's"
             % sys.version_info[:2])

from saveset.cli.main import main

sys.exit(main())
"""


def build() -> bytes:
    """The archive's bytes, from the sources of this package wherever it was imported from."""
    files = {"__main__.py": _MAIN.encode()}
    engine = sys.modules[cli.__name__.rpartition(".")[0]]
    for package, folder in ((engine, _ROOT), (cli, f"{_ROOT}/cli")):
        for name in _modules(package):
            files[f"{folder}/{name}.py"] = _source(package.__name__, name)
    return _archive(files)


def refresh(store: Store) -> bool:
    """Make a repository carry this version of the tool and of README.txt, and tell whether anything was written.

    What a newer version put there stays.  Raises SavesetError, OSError.
    """
    archive = build()
    found = _get(store, NAME)
    if found is not None and _version(found) > _parse(VERSION):
        return False
    changed = False
    for name, wanted, present in ((README_NAME, README.encode(), _get(store, README_NAME)), (NAME, archive, found)):
        if present != wanted:
            store.put(name, wanted, exclusive=False)
            changed = True
    return changed


def try_refresh(store: Store) -> None:
    """As refresh(), for a backup, which must not fail for it: what could not be done now the next one does."""
    try:
        refresh(store)
    except (SavesetError, OSError):
        return


def _modules(package: types.ModuleType) -> list[str]:
    return ["__init__", *(module.name for module in pkgutil.iter_modules(package.__path__) if not module.ispkg)]


def _source(package: str, name: str) -> bytes:
    data = pkgutil.get_data(package, f"{name}.py")
    if data is None:
        raise NotFound(f"{package}.{name}", "its source cannot be read", "Install the collection as source files")
    return data


def _archive(files: t.Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        archive.comment = f"{_COMMENT}{VERSION}".encode()
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = _UNIX
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _get(store: Store, name: str) -> bytes | None:
    try:
        return store.get(name)
    except NotFound:
        return None


def _version(archive: bytes) -> tuple[int, ...]:
    """The version that wrote an archive; an empty one, the oldest of all, when it is damaged."""
    try:
        with zipfile.ZipFile(io.BytesIO(archive)) as opened:
            return _parse(opened.comment.decode().removeprefix(_COMMENT))
    except (zipfile.BadZipFile, ValueError):
        return ()


def _parse(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


if __name__ == "__main__":
    with open(sys.argv[1], "wb") as output:
        output.write(build())
