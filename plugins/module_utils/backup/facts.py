# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys and savesets as modules take and return them: plain values, none of them secret."""

from __future__ import annotations

import datetime
from typing import Any

from ..saveset.access.keyfile import KeyInfo
from ..saveset.base.errors import InvalidValue
from ..saveset.format.commit import SavesetInfo, utc
from ..saveset.format.order import Place


def key_facts(info: KeyInfo) -> dict[str, Any]:
    """A key as modules return it; none of it is secret."""
    return {
        "id": info.id,
        "method": info.method,
        "created": info.created,
        "label": info.label,
        "public_key": info.public_key,
        "reads": info.gives_master,
    }


def saveset_facts(info: SavesetInfo) -> dict[str, Any]:
    """A saveset as modules return it: plain values, times as ISO 8601 in UTC."""
    return {
        "id": info.id,
        "volume": info.volume,
        "server": info.volume.partition("/")[0],
        "run_id": info.run_id,
        "sequence": info.sequence,
        "time": info.time.astimezone(datetime.UTC).isoformat(),
        "verdict": info.verdict,
        "size": info.size,
        "digest": info.digest,
        "stats": info.stats.as_dict(),
        "metadata": info.metadata,
        "origin": info.origin,
    }


def known_places(known: list[dict[str, Any]] | None) -> dict[str, Place] | None:
    """What the journal knows, by saveset id, in the engine's form; None where there is no journal."""
    if known is None:
        return None
    try:
        times = [datetime.datetime.fromisoformat(entry["time"]) for entry in known]
        return {
            entry["id"]: Place(entry["volume"], entry["sequence"], utc(time), entry["id"])
            for entry, time in zip(known, times, strict=True)
        }
    except ValueError as error:
        raise InvalidValue("known", f"a time in it is not ISO 8601 ({error})", "Pass what the journal says") from error
