# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the primitives allow: each stage of a full backup measured by itself, on the image, with two threads.

    primitives.py IMAGE WORK LEVEL

Each thread takes every other range of 4 MiB, as the engine's workers do, and times each call.  A stage's rate is its
bytes over half of the two threads' seconds; the last stage writes as many bytes as were packed, and syncs them.

The limit of a full backup is the sum over all stages of bytes / rate, with each stage's own bytes: read and zero test
what is allocated, hash and compress what is not zero, encrypt, hash again and write what came out of that.
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
import zstandard
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MIB = 1 << 20
RANGE_BYTES = 4 * MIB
FRAME_BYTES = MIB
CHUNK_BYTES = MIB // 4
THREADS = 2
STAGES = ("read", "zero_test", "hash", "compress", "encrypt", "hash_packed", "write")

_KEY = b"only a benchmark, 32 bytes long."
_ZEROS = bytes(CHUNK_BYTES)


class Stage(t.NamedTuple):
    """Bytes that went through a stage, and the seconds that all threads spent in it, added up."""

    bytes: int
    thread_seconds: float


def limit_seconds(stages: t.Mapping[str, Stage], threads: int = THREADS) -> float:
    """The sum over all stages of bytes / rate; ``write`` is one stream, whatever the threads."""
    return sum(stage.thread_seconds / (1 if name == "write" else threads) for name, stage in stages.items())


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
        self._compressor = zstandard.ZstdCompressor(level=level, write_checksum=False)
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
        packed: t.Any = self._timed("compress", end - begin, self._compressor.compress, frame)
        if len(packed) > len(frame):
            packed = frame
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
    kept = [frame for worker in workers for frame in worker.kept]
    stages["write"] = _write(work / "primitives", kept, stages["write"].bytes)
    return stages


def _write(path: Path, frames: list[bytes], length: int) -> Stage:
    begun = time.perf_counter()
    written = 0
    with open(path, "wb", buffering=0) as file:
        while written < length:
            for frame in frames:
                written += file.write(frame[: length - written])
        os.fsync(file.fileno())
    seconds = time.perf_counter() - begun
    path.unlink()
    return Stage(written, seconds)


def main() -> None:
    """Measure, print as JSON."""
    image, work, level = sys.argv[1:]
    stages = measure(Path(image), Path(work), int(level))
    result = {name: stage._asdict() for name, stage in stages.items()}
    print(json.dumps({"stages": result, "limit_s": limit_seconds(stages)}))


if __name__ == "__main__":
    main()
