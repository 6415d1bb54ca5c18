# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""``isb-saveset.pyz``: this package and its command line as one file that Python runs.  Every repository carries it.

The same sources give the same bytes, so anybody can check a repository's copy against one built from the sources:
entries are sorted, bear one fixed time, and are not compressed, as compressors differ.

Nothing that lies in a repository is believed for its own word: whoever can write there could replace the program, and
it is given the passphrase.  The document ``tool.json`` says, under the repository's key, which release put which bytes
there; a backup replaces whatever it does not vouch for, and a verification names it.  A write-only server has the key
that makes that document.  So what is run with a secret is a copy that was kept elsewhere, or one whose SHA-256 was
compared with what was kept elsewhere.

``python3 -m saveset.tool FILE`` writes the program to a file, and tells its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import pkgutil
import sys
import types
import typing as t
import zipfile

from . import cli
from .document import decode_document, encode_document
from .errors import NotFound, SavesetError
from .keys import KeyRing
from .readme import README
from .requirements import REQUIREMENTS
from .store import Store
from .version import VERSION

if t.TYPE_CHECKING:
    # Never imported here, for it imports us; but Ansible sends to a host only what is imported somewhere.
    from .cli import main  # noqa: F401

NAME = "isb-saveset.pyz"
README_NAME = "README.txt"
DOCUMENT_NAME = "tool.json"
REQUIREMENTS_NAME = "requirements.txt"
SUMS_NAME = "SHA256SUMS"
DOCUMENT_KIND = "tool"

_ROOT = "saveset"
_TIME = (1980, 1, 1, 0, 0, 0)
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


class Vouched(t.NamedTuple):
    """What tool.json says: the release that wrote it, and the SHA-256 of each file, in hex, by name."""

    release: str
    digests: t.Mapping[str, str]


def build() -> bytes:
    """The archive's bytes, from the sources of this package wherever it was imported from."""
    files = {"__main__.py": _MAIN.encode()}
    engine = sys.modules[cli.__name__.rpartition(".")[0]]
    for package, folder in ((engine, _ROOT), (cli, f"{_ROOT}/cli")):
        for name in _modules(package):
            files[f"{folder}/{name}.py"] = _source(package.__name__, name)
    return _archive(files)


def kept_files() -> dict[str, bytes]:
    """What is to be kept away from the repository, by name: the program, its text, what it needs, and their SHA-256."""
    files = {**_files(), REQUIREMENTS_NAME: REQUIREMENTS.encode()}
    sums = "".join(f"{sha256(data)}  {name}\n" for name, data in sorted(files.items()))
    return {**files, SUMS_NAME: sums.encode()}


def sha256(data: bytes) -> str:
    """The SHA-256 of a file's content, as the program sha256sum prints it."""
    return hashlib.sha256(data).hexdigest()


def refresh(store: Store, ring: KeyRing) -> bool:
    """Make a repository carry this version of the tool and of README.txt, and tell whether anything was written.

    What a newer version put there stays, provided that its document vouches for it.  The document goes last: until
    then the old one vouches for what is not replaced yet.  Raises SavesetError, OSError.
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
    """As refresh(), for a backup, which must not fail for it: what could not be done now the next one does."""
    try:
        refresh(store, ring)
    except (SavesetError, OSError):
        return


def problems(store: Store, ring: KeyRing | None) -> list[tuple[str, str]]:
    """What is wrong with the tool, README.txt and their document in a repository, as (object, text).

    A file must be what the document vouches for, or what this version makes.  A document of this very version must
    vouch for what this version makes: then a stolen write-only key is found out, too.

    :param ring: None checks what can be checked without a key: nothing is said then of what is missing.
    """
    found: list[tuple[str, str]] = []
    mine = _digests(_files())
    vouched = None
    try:
        vouched = _read(store, ring)
        if vouched.release == VERSION and vouched.digests != mine:
            found.append((DOCUMENT_NAME, f"it vouches for another program than the one that version {VERSION} makes"))
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
                found.append((name, "it is missing; the next backup puts it there"))
        elif sha256(data) not in (digest, vouched.digests[name] if vouched else digest):
            found.append((name, f"it is not what {DOCUMENT_NAME} vouches for: damaged or replaced. Do not run it"))
    return found


def _files() -> dict[str, bytes]:
    """What this version puts into a repository besides the document."""
    return {README_NAME: README.encode(), NAME: build()}


def _digests(files: t.Mapping[str, bytes | None]) -> dict[str, str]:
    return {name: "" if data is None else sha256(data) for name, data in files.items()}


def _believed(store: Store, ring: KeyRing) -> Vouched | None:
    """What the document says; None where there is none that can be believed."""
    try:
        return _read(store, ring)
    except SavesetError:
        return None


def _read(store: Store, ring: KeyRing | None) -> Vouched:
    """What the document says.  Raises NotFound, Damaged, UnsupportedFormat, StoreError."""
    mac = None if ring is None else ring.mac
    fields = decode_document(DOCUMENT_NAME, store.get(DOCUMENT_NAME), DOCUMENT_KIND, mac).fields
    return Vouched(fields["release"], {name: fields["files"][name] for name in (NAME, README_NAME)})


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
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, _TIME)
            entry.create_system = _UNIX
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, files[name])
    return buffer.getvalue()


def _get(store: Store, name: str) -> bytes | None:
    """An object's content; None where it is missing."""
    try:
        return store.get(name)
    except NotFound:
        return None


def _readable(store: Store, name: str) -> bytes | None:
    """An object's content, None also where something else has its name: whatever it is, it is not ours."""
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
