# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The steps that bring one server up: what its hosts are asked to do with all its volumes, and what came of it.

Each step is one task for all volumes. A volume that fails in a step has a problem, by its name, and is left out of the
steps that follow; the others go on. ``volumes`` are those of the server's plan.
"""

from __future__ import annotations

from typing import Any

from ...host.plain import plain
from ..answers import LONGEST_TEXT, AnswerError, nbd_address, nbd_key
from ..entries import Entry
from ..failures import failure_text
from .plan import FAILOVER, TEST
from .volumes import part_of

INSTANT, RESTORE, STORAGE = "instant", "restore", "storage"
SILENT = {"output": "", "output_sha256": "", "commands": [], "files": []}
"""What a check has found that nobody could run."""


def lun_name(drill: str, volume: str) -> str:
    """The name of a volume's export and LUN. ``volume``: as ``server/name``."""
    return f"{drill}.{volume.replace('/', '.', 1).replace('/', '-')}"


def savesets(volumes: list[Entry], drill: str) -> list[Entry]:
    """What saveset_export serves."""
    return [
        {"name": lun_name(drill, volume["volume"]), **{key: volume[key] for key in ("volume", "run_id", "saveset")}}
        for volume in volumes
    ]


def target_of(volume: Entry, drill: str, scratch: str) -> str:
    """Where a volume is restored to: its target in the inventory, or a file of the drill."""
    return str(volume["target"] or f"{scratch}/{lun_name(drill, volume['volume'])}.img")


def reached(volumes: list[Entry], drill: str, asked: Entry, told: Entry, exporter: Entry) -> Entry:
    """The options ``luns`` and ``psks`` of idr_lun, and ``problems`` by volume.

    ``asked``: a dict of source, mode and scratch (the folder for the drill's files on the DR host). ``told``: what
    saveset_export or lun_clone answered; where the source is a restore, problems by volume. ``exporter``: the fact
    openisb_host of the host that has answered.
    """
    luns: list[Entry] = []
    psks: dict[str, str] = {}
    problems: dict[str, str] = {}
    for volume in volumes:
        name = lun_name(drill, volume["volume"])
        try:
            source, psk = _source(volume, drill, asked, told, exporter)
        except AnswerError as error:
            problems[volume["volume"]] = str(error)
            continue
        overlay = _keeps_source(volume, asked)
        luns.append({"name": name, "source": source, "overlay": overlay, "sector_size": volume["sector_size"]})
        psks.update({name: psk} if psk else {})
    return {"luns": luns, "psks": psks, "problems": problems}


def _source(volume: Entry, drill: str, asked: Entry, told: Entry, exporter: Entry) -> tuple[str, str]:
    """Where a volume's LUN reads, and the key that it needs there. Raises AnswerError if there is nothing to read."""
    if asked["source"] == RESTORE:
        if told.get(volume["volume"]):
            raise AnswerError(told[volume["volume"]])
        return target_of(volume, drill, asked["scratch"]), ""
    exports, key = (
        ("luns", volume["serial"]) if asked["source"] == STORAGE else ("exports", lun_name(drill, volume["volume"]))
    )
    answer = {"export": _good(told, exports, key).get("export"), "psk": _dict(told.get("psks")).get(key)}
    return nbd_address(answer, exporter), nbd_key(answer, exporter)


def _keeps_source(volume: Entry, asked: Entry) -> bool:
    """Whether what is written must not reach the source: a saveset, or a standby that remains one.

    A clone, a file restored for this drill and the disks of a failover are written directly.
    """
    if asked["source"] == RESTORE:
        return asked["mode"] == TEST and bool(volume["target"])
    return bool(asked["source"] == INSTANT)


def parts(volumes: list[Entry], drill: str, mode: str, problems: dict[str, str], told: Entry) -> Entry:
    """Where the volumes' filesystems are: ``parts`` as part_of() finds them, and ``problems``, both by volume.

    ``problems``: of earlier steps. ``told``: what idr_lun answered.
    """
    found: dict[str, Entry] = {}
    problems = dict(problems)
    for volume in volumes:
        name = volume["volume"]
        if name in problems:
            continue
        try:
            part = part_of(_lun(told, lun_name(drill, name)), volume, True, mode == FAILOVER)
        except ValueError as error:  # AnswerError is one
            part = {"problem": str(error)}
        if part["problem"]:
            problems[name] = part["problem"]
        else:
            found[name] = part
    return {"parts": found, "problems": problems}


def filesystem_checks(found: Entry, timeout: float) -> list[Entry]:
    """The checks of the filesystems, as recovery_check takes them. ``found``: what parts() returns."""
    return [
        {"name": "filesystem", "volume": volume, "type": part["type"], "timeout": timeout}
        for volume, part in found["parts"].items()
    ]


def devices(found: Entry) -> dict[str, str]:
    """The devices of the filesystems, by volume."""
    return {volume: part["device"] for volume, part in found["parts"].items()}


def mounts(volumes: list[Entry], found: Entry) -> list[Entry]:
    """What idr_mount mounts."""
    return [
        {
            "path": volume["dr_mount"],
            "device": part["device"],
            "fstype": part["mount_type"],
            "opts": part["options"],
        }
        for volume in volumes
        for part in [found["parts"].get(volume["volume"])]
        if part and volume["dr_mount"]
    ]


def outcome(volumes: list[Entry], found: Entry, told: Entry, server: str, source: str, seconds: float) -> Entry:
    """What is up of a server, a dict of

    - up: mounts (production's mount point to that here) and devices (by the volume's name),
    - records: the journal's data for each volume that is up,
    - problem: why others are not, each by its name; empty if all are.

    ``told``: what idr_mount answered; empty if there was nothing to mount. ``seconds``: how long it took.
    """
    up: dict[str, dict[str, str]] = {"mounts": {}, "devices": {}}
    records: list[Entry] = []
    problems = dict(found["problems"])
    for volume in [each for each in volumes if each["volume"] in found["parts"]]:
        part, place = found["parts"][volume["volume"]], volume["dr_mount"]
        try:
            if place:
                _good(told, "mounts", place)
        except AnswerError as error:
            problems[volume["volume"]] = str(error)
            continue
        up["mounts"].update({volume["mount"]: place} if place else {})
        up["devices"][volume["name"]] = part["device"]
        records.append(
            {
                "server": server,
                "volume": volume["volume"],
                "device": part["device"],
                "type": part["type"],
                "dr_mount": place,
                "method": source,
                "seconds": round(seconds, 3),
            }
        )
    texts = [f"{volume['volume']}: {problems[volume['volume']]}" for volume in volumes if volume["volume"] in problems]
    return {"up": up, "records": records, "problem": "; ".join(texts)}


def check_records(checks: list[Entry], told: Entry, server: str, dr_host: str) -> list[Entry]:
    """The journal's data for each check, also where the DR host could not be reached.

    ``told``: what recovery_check answered, or the result of a task whose host did not answer. ``server``: empty for
    checks over all servers.
    """
    results = told.get("checks")
    answers = results if isinstance(results, list) and len(results) == len(checks) else [None] * len(checks)
    return [
        {
            "server": server,
            "volume": check.get("volume") or "",
            **(answer or {"check": _no_answer(check, told, dr_host), "ago": 0.0}),
        }
        for check, answer in zip(checks, answers, strict=True)
    ]


def _no_answer(check: Entry, told: Entry, dr_host: str) -> Entry:
    return {
        "kind": check["name"],
        "what": check.get("what") or check.get("volume") or "what was brought up",
        "ok": False,
        "detail": f"{dr_host} is no longer reachable: {failure_text(told)}",
        "seconds": 0,
        **SILENT,
    }


def _lun(told: Entry, name: str) -> Entry:
    lun = _dict(_good(told, "luns", name).get("lun"))
    if not isinstance(lun.get("parts"), list):
        raise AnswerError("the host's answer does not say what is on it")
    return lun


def _good(told: Entry, what: str, key: str) -> Entry:
    """What a host has answered of one volume. Raises AnswerError with the problem that it reports instead."""
    answer = _dict(told.get(what)).get(key)
    if not isinstance(answer, dict):
        raise AnswerError("the host's answer does not contain it")
    if answer.get("problem"):
        raise AnswerError(plain(str(answer["problem"])[:LONGEST_TEXT]))
    return answer


def _dict(value: Any) -> Entry:
    return value if isinstance(value, dict) else {}
