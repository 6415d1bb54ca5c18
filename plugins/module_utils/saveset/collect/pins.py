# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Pins: documents ``pins/<saveset id>.json`` that keep a saveset regardless of the retention policy."""

from __future__ import annotations

import dataclasses
import datetime

from ..base.errors import Damaged, InvalidValue, NotFound, SavesetError
from ..format.document import decode_document, encode_document
from ..keys.keys import KeyRing
from ..store.store import Store

KIND = "pin"
FOLDER = "pins"


@dataclasses.dataclass(frozen=True)
class Pin:
    """Who pinned a saveset, why, and when (UTC, ISO 8601)."""

    saveset: str
    who: str
    why: str
    when: str

    def __str__(self) -> str:
        return f"by {self.who} on {self.when[:10]}: {self.why}"


def pin_name(saveset_id: str) -> str:
    """The name of a saveset's pin in the store."""
    return f"{FOLDER}/{saveset_id}.json"


def put_pin(store: Store, ring: KeyRing, saveset_id: str, who: str, why: str) -> Pin:
    """Pin a saveset, or replace who pins it and why.  Raises InvalidValue, StoreError."""
    if not who or not why:
        raise InvalidValue("the pin", "it does not say who pins the saveset, or why", "Give both")
    now = datetime.datetime.now(datetime.UTC)
    pin = Pin(saveset_id, who, why, f"{now:%Y-%m-%dT%H:%M:%SZ}")
    store.put(pin_name(saveset_id), encode_document(KIND, dataclasses.asdict(pin), ring.mac), exclusive=False)
    return pin


def pin_texts(store: Store, ring: KeyRing) -> dict[str, str]:
    """Who pinned which savesets, and why, by saveset id; for an unreadable pin, which counts too, its problem."""
    pins, unreadable = read_pins(store, ring)
    return {**{key: str(pin) for key, pin in pins.items()}, **{key: f"({text})" for key, text in unreadable.items()}}


def is_pinned(store: Store, saveset_id: str) -> bool:
    """Whether a saveset is pinned, even if the pin is unreadable."""
    try:
        store.size(pin_name(saveset_id))
    except NotFound:
        return False
    except Damaged:
        return True  # not a regular file, but the name alone counts
    return True


def read_pins(store: Store, ring: KeyRing) -> tuple[dict[str, Pin], dict[str, str]]:
    """The pins by saveset id, and the problems of unreadable ones, which count too."""
    pins: dict[str, Pin] = {}
    problems: dict[str, str] = {}
    for name in store.list(FOLDER):
        saveset_id = name.removeprefix(f"{FOLDER}/").removesuffix(".json")
        try:
            document = decode_document(name, store.get(name), KIND)
            document.check_mac(name, ring.mac)
            fields = document.fields
            pin = Pin(fields["saveset"], fields["who"], fields["why"], fields["when"])
            if pin.saveset != saveset_id:
                raise InvalidValue(name, "it is the pin of another saveset", "Pin the right one again")
            pins[pin.saveset] = pin
        except NotFound:
            continue  # unpinned since it was listed
        except SavesetError as error:
            problems[saveset_id] = error.cause
    return pins, problems
