# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of 10, 30, 100 light file servers costs, and where (make bench-scale).

python -m bench.scale [--servers 10,30,100] [--rounds 1] [--revision COMMIT] [--faults] [--lab DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

from . import scale_faults, scale_result
from .scale_lab import ROOT, Code, LightLab, Site, code_of, drop_code, this_code, too_small
from .scale_run import figures, run_once

WHICH = ("first", "second")


def counts(text: str) -> list[int]:
    """The numbers of servers.  Raises ValueError."""
    found = [int(part) for part in text.split(",")]
    if not found or min(found) < 1:
        raise ValueError(f"{text!r} is not a list of positive numbers")
    return found


def measure(lab: LightLab, codes: list[Code], rounds: int) -> list[dict[str, Any]]:
    """First and second run of each code in turn, a round at a time; the next round begins with another code."""
    taken = []
    for number in range(1, rounds + 1):
        for code in codes[(number - 1) % len(codes) :] + codes[: (number - 1) % len(codes)]:
            site = Site(lab, code, number)
            site.set_up()
            for which in WHICH:
                found = figures(run_once(site), lab.count)
                taken.append({"servers": lab.count, "code": code.name, "which": which, "round": number, **found})
                print(
                    f"{lab.count} servers, {code.name}, round {number}, {which} run: {found['seconds']:.0f} s, "
                    f"controller {found['cpu_seconds']['controller']:.0f} s of processor time, "
                    f"frozen {found['freeze_window_ms']:.0f} ms",
                    flush=True,
                )
    return taken


def hurt(lab: LightLab) -> dict[str, Any]:
    """The run with faults, of this checkout."""
    site = Site(lab, this_code(), 0)
    site.set_up()
    found = scale_faults.run_with_faults(site)
    for name, holds in found["checks"].items():
        print(f"{lab.count} servers with faults: {'holds' if holds else 'DOES NOT HOLD'}: {name}", flush=True)
    return found


def one_lab(lab: LightLab, given: argparse.Namespace, codes: list[Code]) -> dict[str, Any]:
    """All that is asked of one number of servers."""
    try:
        lab.start()
        return {
            "runs": measure(lab, codes, given.rounds),
            "faults": [hurt(lab)] if given.faults and lab.count >= scale_faults.FEWEST else [],
        }
    finally:
        lab.stop()


def write(path: Path, found: dict[str, Any]) -> None:
    """Write what there is so far: a later lab may fail."""
    middle = scale_result.medians(found["runs"])
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {**found, "medians": middle, "growth": scale_result.growth(middle)}
    path.write_text(json.dumps(document, indent=2) + "\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--servers", type=counts, default=[10, 30, 100])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--revision", default="")
    parser.add_argument("--faults", action="store_true")
    parser.add_argument("--lab", type=Path, default=ROOT / "build/scale-lab")
    parser.add_argument("--json", type=Path, default=ROOT / "build/scale.json")
    given = parser.parse_args()
    folder = given.lab.resolve()
    if problem := too_small(folder.parent, max(given.servers)):
        parser.error(problem)
    if given.faults and max(given.servers) < scale_faults.FEWEST:
        parser.error(f"a run with faults needs at least {scale_faults.FEWEST} servers")
    other = code_of(given.revision, ROOT / "build/scale-code") if given.revision else None
    found: dict[str, Any] = {"runs": [], "faults": []}
    found["machine"] = f"{os.cpu_count()} processors, Linux {platform.release()}"
    try:
        for count in given.servers:
            for kind, entries in one_lab(
                LightLab(folder, count), given, [this_code(), *([other] if other else [])]
            ).items():
                found[kind] += entries
            found["load"] = round(os.getloadavg()[0], 1)
            write(given.json, found)
    finally:
        if other:
            drop_code(other)
    middle = scale_result.medians(found["runs"])
    print(found["machine"], *([scale_result.table(middle), scale_result.chart(middle)] if middle else []), sep="\n\n")
    wrong = [name for entry in found["faults"] for name, holds in entry["checks"].items() if not holds]
    print(*(f"does not hold: {name}" for name in wrong), sep="\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
