# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The head of a journal, signed and kept elsewhere: a journal that was truncated or rewritten does not continue it.

A host can recompute the chain of its own journal at will. So the number and the hash of the newest record are kept
where that host does not write: by the backup server as the object ``journal/<listener>.json`` of the repository, and by
the controller as a copy. A later journal must contain that record, and all later records must follow from it.

The object is one JSON object in canonical form and a line feed. ``signature`` is Ed25519, in base64, by the key that
signs the reports of drills, over SIGNED and the canonical form of the other fields.
"""

from __future__ import annotations

import json
import re
from typing import Any, Dict
from urllib.parse import quote

from .journal import GENESIS, record_hash

Head = Dict[str, Any]

KIND = "journal-head"
SIGNED = b"openisb journal head 1\n"
"""Prefix of what is signed: the same key signs reports, and neither may pass for the other (domain separation)."""
MAX_BYTES = 4096
_HEX = re.compile(r"[0-9a-f]{64}")
_FORM: dict[str, type] = {
    "number": int,
    "listener": str,
    "repository": str,
    "seq": int,
    "hash": str,
    "run_id": str,
    "time": str,
    "accepted": bool,
    "key": str,
    "signature": str,
}


class HeadError(ValueError):
    """A kept head that cannot be relied on; the text says why."""


def object_name(listener: str) -> str:
    """The object that holds the head of a listener's journal; any host name maps to exactly one object name."""
    return f"journal/{quote(listener, safe='')}.json"


def to_sign(head: Head) -> bytes:
    """The bytes that the signature of a head covers."""
    return SIGNED + _canonical({name: value for name, value in head.items() if name != "signature"})


def encode(head: Head) -> bytes:
    """A signed head as an object."""
    return _canonical(head) + b"\n"


def decode(data: bytes, listener: str) -> Head:
    """Decode the head in an object or copy. Validates its form, not its signature. Raises HeadError."""
    if len(data) > MAX_BYTES:
        raise HeadError(f"it has more than {MAX_BYTES} bytes")
    try:
        head = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HeadError("it is not JSON") from error
    if not isinstance(head, dict) or (head.get("openisb"), head.get("version")) != (KIND, 1):
        raise HeadError(f"it is not a {KIND} of version 1")
    wrong = [name for name, kind in _FORM.items() if not _is_of(head.get(name), kind)]
    if wrong or head["number"] < 1 or head["seq"] < 1 or not _HEX.fullmatch(head["hash"]):
        raise HeadError("it is incomplete or malformed")
    if head["listener"] != listener:
        raise HeadError("it belongs to another listener")
    return head


def _is_of(value: Any, kind: type) -> bool:
    """Whether a value is of that type; true and false do not count as numbers."""
    return isinstance(value, kind) and isinstance(value, bool) == (kind is bool)


def kept_heads(kept: dict[str, Any], copy: str, copy_path: str) -> dict[str, Any]:
    """The kept heads of a journal, in the repository and on the controller.

    ``kept``: what journal_head_info found. ``copy``: the text of the controller's copy, empty where there is none.
    Returns heads (dicts of where, seq and hash), problems (texts), after (the highest number) and since (the lowest
    seq, None where nothing is kept).
    """
    places = [(f"the repository {kept['repository']}", kept["head"])] if kept["head"] else []
    problems = [kept["problem"]] if kept["problem"] else []
    if copy:
        try:
            head = decode(copy.encode(), kept["listener"])
        except HeadError as error:
            problems.append(f"the copy {copy_path} on the controller cannot be used: {error}")
        else:
            places.append((f"the copy {copy_path} on the controller", head))
            problems += [] if kept["problem"] else _disagreement(kept, head, copy_path)
    return {
        "heads": [{"where": where, "seq": head["seq"], "hash": head["hash"]} for where, head in places],
        "problems": problems,
        "after": max((head["number"] for _where, head in places), default=0),
        "since": min((head["seq"] for _where, head in places), default=None),
    }


def _disagreement(kept: dict[str, Any], copy: Head, copy_path: str) -> list[str]:
    """How the controller's copy contradicts the repository's head; a copy from another repository cannot."""
    if copy["repository"] != kept["repository_id"]:
        return []
    number = kept["head"].get("number", 0)
    if number < copy["number"]:
        found = f"number {number}" if number else "none"
        text = (
            f"the repository {kept['repository']} has an older kept head ({found}) than the copy {copy_path} on the "
            f"controller (number {copy['number']}): the repository, or the head in it, was rolled back"
        )
        return [text]
    if copy["key"] != kept["fingerprint"]:
        text = (
            f"the backup server signs with another key (SHA-256 {kept['fingerprint']}) than the one that signed the "
            f"copy {copy_path} on the controller ({copy['key']})"
        )
        return [text]
    return []


def continuation_problems(journal: dict[str, Any], heads: list[dict[str, Any]], since: int | None = None) -> list[str]:
    """Where a journal does not continue its kept heads; empty where it does.

    ``journal``: records (all from ``since`` on; None: from the lowest seq of the heads on), count and chain_head.
    Hashes are recomputed: the host that has the journal is not trusted. A head of seq 0 stands for an empty journal.
    """
    since = min((head["seq"] for head in heads), default=None) if since is None else since
    cut = [_cut(head, journal["count"]) for head in heads if journal["count"] < head["seq"]]
    if cut or since is None:
        return cut
    first, hashes = max(since, 1), {0: GENESIS}
    for seq, record in enumerate(journal["records"], start=first):
        if not isinstance(record, dict) or record.get("seq") != seq:
            return [f"in place of record {seq} it has another record, or none"]
        if seq - 1 in hashes and record.get("previous") != hashes[seq - 1]:
            return [f"record {seq} does not follow the record before it"]
        hashes[seq] = record_hash(record)
    newest = max(hashes)
    if (newest, hashes[newest]) != (journal["count"], journal["chain_head"]):
        return [f"its host reports {journal['count']} records, but its records end with record {newest}"]
    return [
        f"its record {head['seq']} does not have the hash that {head['where']} keeps"
        for head in heads
        if hashes.get(head["seq"]) != head["hash"]
    ]


def _cut(head: dict[str, Any], count: int) -> str:
    return f"it has {count} records, and by {head['where']} it had {head['seq']}"


def _canonical(fields: dict[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
