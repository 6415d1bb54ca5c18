# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset.pyz``: this package and its command line as one file that Python runs.  Every repository carries it.

The build is reproducible, so anybody can compare a repository's copy with one built from the sources: entries are
sorted, have one fixed time, and are not compressed, because compressors differ.

Nothing in a repository is trusted on its own: anyone who can write there could replace the program, which is given
the passphrase.  The document ``tool.json``, authenticated with the repository's key, says which release put which bytes
there; a backup replaces whatever it does not vouch for, and a verification reports it.  But a write-only server has the
key that makes this document.  So only a copy that was kept elsewhere, or one whose SHA-256 was compared with a copy
kept elsewhere, may be run with a secret.

``python3 -m saveset.program.tool FILE`` writes the program to a file and prints its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import os
import pkgutil
import sys
import types
import typing as t
import zipfile

from ..base.errors import NotFound, SavesetError
from ..base.version import VERSION
from ..format.document import decode_document, encode_document
from ..keys.keys import KeyRing
from ..store.store import Store
from .readme import README
from .requirements import REQUIREMENTS

if t.TYPE_CHECKING:
    # Never imported at run time, because it imports this module; but Ansible sends only modules that are imported.
    from ..cli import main  # noqa: F401

#: The folder, or the archive, that holds the package ``saveset``.
PACKAGE_HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
NAME = "isb-saveset.pyz"
README_NAME = "README.txt"
DOCUMENT_NAME = "tool.json"
REQUIREMENTS_NAME = "requirements.txt"
SUMS_NAME = "SHA256SUMS"
DOCUMENT_KIND = "tool"

_ROOT = "saveset"
_TIME = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
#: Every Python understands this, even if it is too old for the rest.
_MAIN = """\
import sys

if sys.version_info < (3, 11):
    sys.exit("isb-saveset: Python %d.%d: it is too old. Use Python 3.11 or newer, such as Debian 12's"
             % sys.version_info[:2])

from saveset.cli.main import main

sys.exit(main())
"""


class Vouched(t.NamedTuple):
    """The content of tool.json: the release that wrote it, and the SHA-256 of each file, in hex, by name."""

    release: str
    digests: t.Mapping[str, str]


def build() -> bytes:
    """The archive's bytes, from the sources of this package wherever it was imported from."""
    return _archive({"__main__.py": _MAIN.encode(), **_sources(list(_engine().__path__), "")})


def kept_files() -> dict[str, bytes]:
    """The files to keep outside the repository, by name: program, README, list of packages, and their SHA-256."""
    files = {**_files(), REQUIREMENTS_NAME: REQUIREMENTS.encode()}
    sums = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(files.items()))
    return {**files, SUMS_NAME: sums.encode()}


def sha256(data: bytes) -> str:
    """The SHA-256 of a file's content, as sha256sum prints it."""
    return hashlib.sha256(data).hexdigest()


def refresh(store: Store, ring: KeyRing) -> bool:
    """Put this version of the tool and of README.txt into a repository; returns whether anything was written.

    What a newer version put there stays if its document vouches for it.  The document is written last: until then the
    old one vouches for what is not yet replaced.  Raises SavesetError, OSError.
    """
    mine = _files()
    found = {name: _readable(store, name) for name in mine}
    vouched = _believed(store, ring)
    if vouched is not None and _parse(vouched.release) > _parse(VERSION) and _digests(found) == vouched.digests:
        return False
    changed = False
    for name, data in mine.items():
        if found[name] != data:
            store.put(name, data, exclusive=False)
            changed = True
    if vouched != Vouched(VERSION, _digests(mine)):
        fields = {"release": VERSION, "files": _digests(mine)}
        store.put(DOCUMENT_NAME, encode_document(DOCUMENT_KIND, fields, ring.mac), exclusive=False)
        changed = True
    return changed


def try_refresh(store: Store, ring: KeyRing) -> None:
    """Like refresh(), for a backup, which must not fail because of it: the next backup tries again."""
    try:
        refresh(store, ring)
    except (SavesetError, OSError):
        return


def problems(store: Store, ring: KeyRing | None) -> list[tuple[str, str]]:
    """What is wrong with the tool, README.txt and their document in a repository, as (object, text).

    A file must be what the document vouches for, or what this version makes.  A document of this same version must
    vouch for what this version makes, so that misuse of a stolen write-only key is also detected.

    :param ring: with None, only what needs no key is verified, and missing files are not reported.
    """
    found: list[tuple[str, str]] = []
    mine = _digests(_files())
    vouched = None
    try:
        vouched = _read(store, ring)
        if vouched.release == VERSION and vouched.digests != mine:
            found.append((DOCUMENT_NAME, f"it vouches for a program other than the one that version {VERSION} makes"))
    except NotFound:
        if ring is not None:
            found.append((DOCUMENT_NAME, f"it is missing: nothing vouches for {NAME}"))
    except SavesetError as error:
        found.append((DOCUMENT_NAME, error.cause))
    for name, digest in mine.items():
        try:
            data = _get(store, name)
        except SavesetError as error:
            found.append((name, error.cause))
            continue
        if data is None:
            if ring is not None:
                found.append((name, "it is missing; the next backup writes it"))
        elif sha256(data) not in (digest, vouched.digests[name] if vouched else digest):
            found.append((name, f"it is not what {DOCUMENT_NAME} vouches for: damaged or replaced. Do not run it"))
    return found


def _files() -> dict[str, bytes]:
    """What this version puts into a repository besides the document."""
    return {README_NAME: README.encode(), NAME: build()}


def _digests(files: t.Mapping[str, bytes | None]) -> dict[str, str]:
    return {name: "" if data is None else sha256(data) for name, data in files.items()}


def _believed(store: Store, ring: KeyRing) -> Vouched | None:
    """The content of the document; None if there is no authentic one."""
    try:
        return _read(store, ring)
    except SavesetError:
        return None


def _read(store: Store, ring: KeyRing | None) -> Vouched:
    """The content of the document.  Raises NotFound, Damaged, UnsupportedFormat, StoreError."""
    mac = None if ring is None else ring.mac
    fields = decode_document(DOCUMENT_NAME, store.get(DOCUMENT_NAME), DOCUMENT_KIND, mac).fields
    return Vouched(fields["release"], {name: fields["files"][name] for name in (NAME, README_NAME)})


def _engine() -> types.ModuleType:
    return sys.modules[str(__package__).rpartition(".")[0]]


def _sources(paths: list[str], folder: str) -> dict[str, bytes]:
    """All sources of a package and its packages, by their names in the archive. Nothing of them is imported."""
    files = {f"{_ROOT}/{folder}__init__.py": _source(f"{folder}__init__.py")}
    for module in pkgutil.iter_modules(paths):
        if module.ispkg:
            files.update(_sources([f"{path}/{module.name}" for path in paths], f"{folder}{module.name}/"))
        else:
            files[f"{_ROOT}/{folder}{module.name}.py"] = _source(f"{folder}{module.name}.py")
    return files


def _source(name: str) -> bytes:
    data = pkgutil.get_data(_engine().__name__, name)
    if data is None:
        raise NotFound(name, "the engine's source cannot be read", "Install the collection as source files")
    return data


def _archive(files: t.Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO(b"#!/usr/bin/env python3\n")
    buffer.seek(0, io.SEEK_END)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = _UNIX
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _get(store: Store, name: str) -> bytes | None:
    """An object's content; None if it is missing."""
    try:
        return store.get(name)
    except NotFound:
        return None


def _readable(store: Store, name: str) -> bytes | None:
    """An object's content; None also if it is unreadable or something else has its name."""
    try:
        return _get(store, name)
    except SavesetError:
        return None


def _parse(release: str) -> tuple[int, ...]:
    return tuple(int(part) for part in release.split("."))


if __name__ == "__main__":
    program = build()
    with open(sys.argv[1], "wb") as output:
        output.write(program)
    sys.stdout.write(f"{sha256(program)}  {sys.argv[1]}\n")
