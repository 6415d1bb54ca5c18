# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the primitives allow: each stage of a full backup measured by itself, on the image, with two threads.

    primitives.py IMAGE WORK LEVEL

Each thread takes every other range of 4 MiB, as the engine's workers do, and times each call.  The last stage writes as
many bytes as were packed, past the page cache where that works, and syncs them.

The limit of a full backup: first the key, derived from the passphrase; then whatever takes longer of

- the processors' work: the threads' seconds of all stages (read and zero test what is allocated, hash and compress what
  is not zero, encrypt and hash again what came out of that), and the processor's seconds of writing it, shared by both
  threads;
- writing, as one stream.
"""

from __future__ import annotations

import concurrent.futures
import json
import mmap
import os
import sys
import time
import typing as t
from pathlib import Path

import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "module_utils"))

from saveset.format import codec
from saveset.keys import secret

MIB = 1 << 20
RANGE_BYTES = 4 * MIB
CHUNK_BYTES = MIB // 4
FRAME_BYTES = CHUNK_BYTES
THREADS = 2
STAGES = ("read", "zero_test", "hash", "compress", "encrypt", "hash_packed", "write")
_WRITE_BYTES = 4 * MIB

_KEY = b"only a benchmark, 32 bytes long."
_ZEROS = bytes(CHUNK_BYTES)


class Stage(t.NamedTuple):
    """Bytes that went through a stage, the seconds that it took all threads, added up, and how long it took by itself
    where that is something else: waiting for the disk is no work of a processor."""

    bytes: int
    thread_seconds: float
    wall_seconds: float = 0.0


def limit_seconds(stages: t.Mapping[str, Stage], key_seconds: float, threads: int = THREADS) -> float:
    """The least that a full backup can take."""
    work = sum(stage.thread_seconds for stage in stages.values()) / threads
    return key_seconds + max(work, *(stage.wall_seconds for stage in stages.values()))


def allocated_ranges(fd: int, size: int) -> list[tuple[int, int]]:
    """(offset, length) of ranges of up to 4 MiB that are not holes."""
    ranges = []
    at = 0
    while at < size:
        try:
            begin = os.lseek(fd, at, os.SEEK_DATA)
        except OSError:  # only a hole is left
            break
        at = os.lseek(fd, begin, os.SEEK_HOLE)
        ranges += [(offset, min(RANGE_BYTES, at - offset)) for offset in range(begin, at, RANGE_BYTES)]
    return ranges


class _Worker:
    """One thread's buffers and sums."""

    def __init__(self, fd: int, level: int) -> None:
        self._fd = fd
        self._buffer = mmap.mmap(-1, RANGE_BYTES)
        self._view = memoryview(self._buffer)
        self._compressor = codec.Compressor(level)
        self._cipher = AESGCM(_KEY)
        self._sealed = bytearray(FRAME_BYTES + 16)
        self.bytes = dict.fromkeys(STAGES, 0)
        self.seconds = dict.fromkeys(STAGES, 0.0)
        self.kept: list[bytes] = []

    def take(self, ranges: t.Iterable[tuple[int, int]]) -> None:
        """Put ranges through all stages but the last."""
        for offset, length in ranges:
            self._timed("read", length, os.preadv, self._fd, [self._view[:length]], offset)
            for begin in range(0, length, FRAME_BYTES):
                self._frame(begin, min(begin + FRAME_BYTES, length))

    def _frame(self, begin: int, end: int) -> None:
        chunks = [(at, min(at + CHUNK_BYTES, end)) for at in range(begin, end, CHUNK_BYTES)]
        zero = self._timed("zero_test", end - begin, self._zero_chunks, chunks)
        if all(zero):
            return
        frame = self._view[begin:end]
        for (at, stop), empty in zip(chunks, zero, strict=True):
            if not empty:
                self._timed("hash", stop - at, self._hash, self._view[at:stop])
        _kind, packed = self._timed("compress", end - begin, self._compressor.compress, frame)
        sealed = memoryview(self._sealed)[: len(packed) + 16]
        self._timed("encrypt", len(packed), self._cipher.encrypt_into, bytes(12), packed, None, sealed)
        self._timed("hash_packed", len(packed), self._hash, sealed)
        self.bytes["write"] += len(packed)
        if len(self.kept) < 16:
            self.kept.append(bytes(sealed))

    def _zero_chunks(self, chunks: list[tuple[int, int]]) -> list[bool]:
        return [self._buffer.find(_ZEROS[: end - begin], begin, end) == begin for begin, end in chunks]

    @staticmethod
    def _hash(data: memoryview) -> None:
        blake3.blake3(data, key=_KEY).digest()

    def _timed(self, stage: str, length: int, function: t.Callable[..., t.Any], *arguments: t.Any) -> t.Any:
        begun = time.perf_counter()
        result = function(*arguments)
        self.seconds[stage] += time.perf_counter() - begun
        self.bytes[stage] += length
        return result


def measure(image: Path, work: Path, level: int) -> dict[str, Stage]:
    """All stages on this image; ``work`` is a folder of the filesystem that is written to."""
    fd = os.open(image, os.O_RDONLY)
    try:
        ranges = allocated_ranges(fd, os.fstat(fd).st_size)
        workers = [_Worker(fd, level) for _thread in range(THREADS)]
        with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
            for work_done in [pool.submit(w.take, ranges[n::THREADS]) for n, w in enumerate(workers)]:
                work_done.result()
    finally:
        os.close(fd)
    stages = {
        name: Stage(sum(worker.bytes[name] for worker in workers), sum(worker.seconds[name] for worker in workers))
        for name in STAGES
    }
    kept = b"".join(frame for worker in workers for frame in worker.kept)
    stages["write"] = _write(work / "primitives", kept, stages["write"].bytes)
    return stages


def _write(path: Path, data: bytes, length: int) -> Stage:
    """Write ``length`` bytes, rounded up to whole blocks."""
    block = mmap.mmap(-1, _WRITE_BYTES)
    block[:] = (data * (_WRITE_BYTES // len(data) + 1))[:_WRITE_BYTES] if data else bytes(_WRITE_BYTES)
    fd = _open_direct(path)
    try:
        worked, begun = time.process_time(), time.perf_counter()
        written = 0
        while written < length:
            written += os.write(fd, block)
        os.fsync(fd)
        return Stage(written, time.process_time() - worked, time.perf_counter() - begun)
    finally:
        os.close(fd)
        path.unlink()


def _open_direct(path: Path) -> int:
    """A new file, written past the page cache where its filesystem allows that."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    try:
        return os.open(path, flags | os.O_DIRECT, 0o600)
    except OSError:
        path.unlink(missing_ok=True)
        return os.open(path, flags, 0o600)


def derive_key() -> float:
    """Seconds to derive a key from a passphrase, at the engine's cost."""
    cost = secret.ScryptCost()
    begun = time.perf_counter()
    Scrypt(salt=bytes(16), length=32, n=cost.n, r=cost.r, p=cost.p).derive(b"only a benchmark")
    return time.perf_counter() - begun


def main() -> None:
    """Measure, print as JSON."""
    image, work, level = sys.argv[1:]
    key_s = derive_key()
    stages = measure(Path(image), Path(work), int(level))
    result = {name: stage._asdict() for name, stage in stages.items()}
    print(json.dumps({"stages": result, "key_s": key_s, "limit_s": limit_seconds(stages, key_s)}))


if __name__ == "__main__":
    main()
