# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The size limits of the parts of packs and maps: readers refuse what exceeds them, so no writer makes it.

docs/saveset-format.md lists them under "Limits".  The limits of whole objects are in :mod:`.names`.
"""

from __future__ import annotations

#: A volume, and with it every offset, in bytes.
VOLUME_BYTES_MAX = 1 << 63

CHUNK_SIZE_MIN = 4 << 10
CHUNK_SIZE_MAX = 4 << 20
CHUNK_SIZES = frozenset(1 << bits for bits in range(CHUNK_SIZE_MIN.bit_length() - 1, CHUNK_SIZE_MAX.bit_length()))

#: Plain bytes of a frame of a pack, and the chunks and pieces that a pack may hold.
PACK_FRAME_MAX = 16 << 20
PACK_ROWS_MAX = 1 << 19
#: Plain bytes of a pack's footer.
PACK_FOOTER_MAX = 64 + 64 * PACK_ROWS_MAX

#: Plain bytes of a page: 1,024 entries of 64 bytes, and for each chunk as many pieces of 72 bytes as it has grains.
PAGE_MAX = 1024 * (64 + 32 * 72)
#: Leaves of a map, and plain bytes of its directory.
LEAVES_MAX = 1 << 20
DIRECTORY_MAX = 128 << 20
