# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give a repository packs that tell of millions of chunks, for the memory test.

    known_chunks.py REPOSITORY CHUNKS

The packs are footers without frames, sealed by the engine's own functions: a backup reads nothing else of them, and no
map names their chunks.
"""

from __future__ import annotations

import os
import sys
import typing as t
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "plugins" / "module_utils"))

from saveset import repository
from saveset.base import extent
from saveset.format import codec, container, footer
from saveset.keys import secret
from saveset.store import registry

#: As many as fit into a pack of real data that compresses to two fifths.
_CHUNKS_PER_PACK = 1280
_CHUNKS_PER_FRAME = 4
_FRAME_BYTES = 400_000


def build(path: str, chunks: int) -> None:
    """Add packs that tell of ``chunks`` chunks."""
    repo = repository.Repository.open(registry.open_store(path), secret.Secret(b"only a benchmark"))
    for first in range(0, chunks, _CHUNKS_PER_PACK):
        _put_pack(repo, _rows(first, min(_CHUNKS_PER_PACK, chunks - first)))


def _rows(first: int, count: int) -> bytes:
    rows = bytearray(footer.SESSION_BYTES)
    for number in range(count):
        frame, place = divmod(number, _CHUNKS_PER_FRAME)
        rows += footer.ROW.pack(
            os.urandom(32), frame * _FRAME_BYTES, _FRAME_BYTES, place, extent.DATA, first + number, 0
        )
    return bytes(rows)


def _put_pack(repo: repository.Repository, rows: bytes) -> None:
    ring, kind = repo._ring, container.PACK_KIND
    pack_id = os.urandom(16)
    prefix = container.make_header(kind, pack_id, repo.chunk_size, ring.encrypted)
    packed, data = codec.Compressor(1).compress(rows)
    sealed: t.Iterable[bytes] = container.make_end(
        prefix, ring.cipher(kind.footer_key, pack_id), (packed, bytes(data), len(rows)), len(prefix), 0
    )
    repo.store.put(container.object_name(kind, pack_id), prefix + b"".join(sealed))


if __name__ == "__main__":
    build(sys.argv[1], int(sys.argv[2]))
