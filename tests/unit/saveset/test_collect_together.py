# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Backups, restores and a collector in processes of their own, some of them killed: nothing that exists is lost.

``OPENISB_TOGETHER_SECONDS`` says how long they run, 4 seconds where it does not.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.collect.prune import PruneOptions
from ansible_collections.openisb.backup.plugins.module_utils.saveset.verify.scrub import scrub

from .conftest import Lab

SECONDS = float(os.environ.get("OPENISB_TOGETHER_SECONDS", "4"))
ENGINE = Path(__file__).resolve().parents[3] / "plugins" / "module_utils"

COMMON = """
import datetime, hashlib, os, random, sys, time
sys.path.insert(0, sys.argv[1])
from saveset.backup import backup, changes, request
from saveset.base import errors
from saveset.collect import prune, retention
from saveset import repository
from saveset.keys import secret
from saveset.io import source, target
from saveset.store import registry
backup.FRAME_BYTES = 128 << 10
path, folder, number, until = sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])
generator = random.Random()
CHUNK, CHUNKS = 64 << 10, 24

def opened():
    return repository.Repository.open(registry.open_store(path), secret.Secret(b"correct horse"))

def digest(name):
    return hashlib.sha256(open(name, "rb").read()).hexdigest()
"""

# Chunks come from a few seeds that all writers share, so that they use each other's packs all the time.
WRITER = (
    COMMON
    + """
image = f"{folder}/image{number}"
chunks = [random.Random(generator.randrange(20)).randbytes(CHUNK) for _ in range(CHUNKS)]
generation = f"{os.getpid()}-0"
made = 0
while time.time() < until or made < 3:
    before, touched = generation, []
    for _ in range(generator.randrange(1, 6)):
        at = generator.randrange(CHUNKS)
        if generator.random() < 0.5:
            chunks[at] = random.Random(generator.randrange(20)).randbytes(CHUNK)
            touched.append((at * CHUNK, CHUNK))
        else:
            part = generator.randrange(32) * 2048
            chunks[at] = chunks[at][:part] + generator.randbytes(2048) + chunks[at][part + 2048:]
            touched.append((at * CHUNK + part, 2048))
    with open(image, "wb") as stream:
        stream.write(b"".join(chunks))
    generation = f"{os.getpid()}-{made + 1}"
    listed = changes.Changes(before, CHUNK * CHUNKS, touched) if generator.random() < 0.7 else None
    with source.open_source(image) as stream:
        opened().backup(
            stream,
            request.BackupRequest(
                volume=f"fs{number}/m", run_id="together", time=datetime.datetime.now(datetime.timezone.utc),
                verdict="x", metadata={"sha256": digest(image)}, source_id=generation, changes=listed,
                pack_bytes=300 << 10,
            ),
        )
    made += 1
print(made)
"""
)

READER = (
    COMMON
    + """
made = 0
while time.time() < until or made < 3:
    savesets = opened().savesets()
    if not savesets:
        time.sleep(0.05)
        continue
    info = generator.choice(savesets)
    output = f"{folder}/restored{number}"
    try:
        with target.open_target(output, info.size) as stream:
            opened().saveset(info).restore(stream)
    except errors.NotFound as error:
        if "it has been forgotten" not in str(error):
            raise
    else:
        assert digest(output) == info.metadata["sha256"], info
        made += 1
    os.unlink(output)
print(made)
"""
)

COLLECTOR = (
    COMMON
    + """
freed = waits = 0
while time.time() < until:
    everywhere = generator.random() < 0.3
    options = prune.PruneOptions(threshold=generator.choice([0.0, 0.1]), everywhere=everywhere, max_percent=100)
    try:
        report = opened().prune(retention.Policy(last=generator.randrange(1, 4)), options=options)
    except errors.RepositoryBusy:
        continue
    freed += report.bytes_freed
    waits += len(report.waiting)
    time.sleep(generator.random() * 0.05)
print(freed, waits)
"""
)


class Crowd:
    """Processes that use one repository."""

    def __init__(self, lab: Lab, folder: Path, until: float) -> None:
        self._lab = lab
        self._folder = folder
        self._until = until
        self.running: list[subprocess.Popen[str]] = []

    def start(self, program: str, number: int) -> subprocess.Popen[str]:
        """Start one more."""
        arguments = [str(ENGINE), str(self._lab.path), str(self._folder), str(number), str(self._until)]
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE, text=True)
        self.running.append(process)
        return process

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.running:
            process.kill()
            process.wait()


@pytest.mark.slow
def test_writers_readers_and_a_collector_together(lab: Lab, tmp_path: Path) -> None:
    until = time.time() + SECONDS
    crowd = Crowd(lab, tmp_path, until)
    try:
        steady = [crowd.start(WRITER, 0), crowd.start(READER, 1), crowd.start(COLLECTOR, 2)]
        killed = 0
        while time.time() < until - 0.5:
            victims = [crowd.start(WRITER, 3), crowd.start(COLLECTOR, 4)]
            time.sleep(random.uniform(0.3, 1.2))
            for victim in victims:
                victim.kill()
                victim.wait()
                killed += victim.returncode < 0
        for process in steady:
            process.communicate(timeout=60 + SECONDS)
            assert process.returncode == 0
    finally:
        crowd.end()
    assert killed

    repo = lab.open()
    savesets = repo.savesets()
    assert savesets
    for depth in ("structure", "full"):
        report = repo.verify(depth=depth)
        assert report.ok, report.problems
    assert scrub(lab.store()) == []
    for info in savesets:
        output = lab.restore(repo.saveset(info))
        assert hashlib.sha256(output.read_bytes()).hexdigest() == info.metadata["sha256"]
        output.unlink()
    # Everybody is gone: what the dead have left is collected at once, to the last byte.
    report = repo.prune(None, options=PruneOptions(threshold=0.0, everywhere=True))
    assert report.waiting == []
    repo.forget([info.id for info in savesets])
    assert repo.prune(None).waiting == []
    left = [str(path) for folder in ("packs", "maps", "savesets", "gc", "tmp") for path in lab.files(folder)]
    assert left == []
