# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Media that refuse one operation with one error: what there is to try, what must go well there, and what may not."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset import repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import errors
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect import lease
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneOptions
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.retention import Policy
from ansible_collections.openisb.backup.plugins.module_utils.saveset.keys import secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.serve.serving import ServedSaveset
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import registry

from .conftest import Cli, Lab

LINK, UNLINK, SYNC, LOCK = "link", "unlink of an open file", "fsync of a folder", "flock"
OPERATIONS = (LINK, UNLINK, SYNC, LOCK)
ERRORS = ("EBUSY", "EACCES", "EIO", "EXDEV", "EINVAL", "ENOTSUP", "ENOLCK", "EROFS")
TABLE = list(itertools.product(OPERATIONS, ERRORS))
#: What writers cannot do without, and how they say so.
FATAL = {
    **{(LOCK, code): "locking a file (flock) was refused" for code in ERRORS},
    (SYNC, "EIO"): "making names in a folder durable (fsync) was refused",
}
NO_LEASE = "No lease protects this"

_CHEAP = secret.ScryptCost(n=16)
#: Who needs no lease and so no lock.
_WITHOUT_LOCKS = ("pin", "keys")


def read_everything(lab: Lab, image: Path, cli: Cli, leases: bool) -> None:
    """Read in every way.  ``leases``: whether they can be put there; else there is a warning, and nothing else."""
    info = lab.open().savesets()[-1]
    where = ("--repository", lab.path)
    assert info.id[:8] in cli("list", *where).out
    assert info.id in cli("show", "fs1/m", *where).out
    assert cli("key", "list", *where).status == 0
    output = lab.folder / "output"
    commands = {
        "verify": cli("verify", "--quiet", *where),
        "restore": cli("restore", "--quiet", "fs1/m", output, *where),
        "prune": cli("prune", "--keep-last", "1", "--dry-run", *where),
    }
    for name, result in commands.items():
        assert (name, result.status, NO_LEASE in result.err) == (name, 0, not leases)
        if leases:
            shown = [line for line in result.err.split("\n") if line and not (name == "restore" and info.id in line)]
            assert shown == []
    assert output.read_bytes() == exported(lab) == served(lab) == image.read_bytes()


def exported(lab: Lab) -> bytes:
    """A saveset's bytes, as the command reads them."""
    opened = lab.open()
    saveset = opened.find("fs1/m")
    with opened.reading(lease.EXPORT, saveset.info):
        return saveset.read(0, saveset.size)


def served(lab: Lab) -> bytes:
    """A saveset's bytes, as nbdkit gives them out."""
    opened = lab.open()
    saveset = opened.find("fs1/m")
    with opened.reading(lease.SERVE, saveset.info), contextlib.closing(ServedSaveset(saveset, False)) as disk:
        content = bytearray(disk.size)
        disk.read_into(0, content)
    return bytes(content)


def pin(lab: Lab, _image: Path) -> None:
    """Pin and unpin a saveset."""
    opened = lab.open()
    found = opened.find("fs1/m")
    opened.pin(found, "ada", "a reason")
    assert opened.unpin(found.id)


def change_keys(lab: Lab, _image: Path) -> None:
    """Add, change and remove a key."""
    files = lab.open().key_files
    added = files.add_passphrase(b"another one", cost=_CHEAP)
    changed = files.change_passphrase(b"a third one", added.id, cost=_CHEAP)
    files.remove(changed.id)


def prune(lab: Lab, _image: Path) -> None:
    """Forget the older one of two savesets, and remove what it used."""
    before = len(lab.files("packs"))
    report = lab.open().prune(Policy(last=1), options=PruneOptions(max_percent=100))
    assert len(report.forgotten) == 1 and len(lab.files("packs")) < before


def forget(lab: Lab, _image: Path) -> None:
    """Forget a saveset."""
    opened = lab.open()
    assert opened.forget([opened.savesets()[-1].id])


def create(lab: Lab, _image: Path) -> None:
    """Make another repository there."""
    repository.Repository.create(registry.open_store(str(lab.path / "another")), lab.secret)


WRITERS: dict[str, t.Callable[[Lab, Path], object]] = {
    "backup": lambda lab, image: lab.backup(image),
    "pin": pin,
    "keys": change_keys,
    "prune": prune,
    "forget": forget,
    "trial": lambda lab, _image: lab.open().try_writing(),
    "create": create,
}


def write(lab: Lab, image: Path, what: str, operation: str, code: str) -> None:
    """Have one of WRITERS write: it finds another way, or tells what is refused and leaves all as it was."""
    savesets = {info.id for info in lab.open().savesets()}
    fatal = FATAL.get((operation, code))
    if not fatal or (operation == LOCK and what in _WITHOUT_LOCKS):
        WRITERS[what](lab, image)
        report = lab.open().verify(depth="full")
        assert report.problems == []
        return
    with pytest.raises(errors.StoreError) as raised:
        WRITERS[what](lab, image)
    assert fatal in str(raised.value) and f"({code})" in str(raised.value)
    assert str(lab.path) in raised.value.thing and raised.value.way_out
    assert {info.id for info in lab.open().savesets()} <= savesets


@contextlib.contextmanager
def read_only(path: Path) -> t.Iterator[None]:
    """A folder mounted read-only in its own place."""
    if subprocess.run(["mount", "--bind", str(path), str(path)], check=False).returncode:
        pytest.skip("this machine refuses bind mounts")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", str(path)], check=True)
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def nothing_is_left(lab: Lab) -> None:
    """No lease, no half-written file; a collector that could not remove its own is known to be gone."""
    assert lab.files("gc/leases") == [] == lab.files("tmp")
    lab.store().abandoned(lease.COLLECTOR, remove=True)
    assert not (lab.path / lease.COLLECTOR).exists()
