# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The benchmark: everything measured, told as a table and written as JSON (make bench).

python -m bench.run [--size 4G] [--rounds 3] [--work DIR] [--json FILE] [--peers NAMES] ...
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import typing as t
from pathlib import Path

from . import data, measure, memory, result
from .change import scattered, used_extents
from .contender import INCREMENTAL, Contender, last_json, quote
from .measure import ContenderError
from .ours import Ours, OursCompact
from .peers import PEERS
from .rounds import Bench, Round, prune_rounds, turns

_PRUNE_SIZE = 64 << 20
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
#: full_vs_limit, in words; primitives.py has the stages.
LIMIT_FORMULA = (
    "seconds = key + max(thread seconds of all stages / threads, wall seconds of writing); "
    "full_vs_limit = seconds / wall seconds of the full backup"
)
_ROOM = 6  # times the image's size: image, target, and seven repositories


def parse_size(text: str) -> int:
    """Bytes of ``4G``, ``512M``, ...  Raises ValueError."""
    found = re.fullmatch(r"(\d+)([KMGT]?)(i?B)?", text, re.IGNORECASE)
    if not found:
        raise ValueError(f"size {text!r}: write it like 4G or 512M")
    return int(found[1]) * _UNITS[found[2].upper()]


def parse_peers(text: str) -> list[str]:
    """The names in ``restic,borg,...``; all peers for an empty text.  Raises ValueError."""
    names = [name for name in text.replace(",", " ").split() if name]
    for name in names:
        if name not in PEERS:
            raise ValueError(f"peer {name!r}: there are {', '.join(PEERS)}")
    return names or list(PEERS)


def measure_primitives(bench: Bench) -> dict[str, t.Any]:
    """What the primitives take on the image, in a process of their own."""
    measure.warm(bench.image)
    log = bench.work / "primitives.log"
    script = Path(__file__).with_name("primitives.py")
    measure.run(quote(sys.executable, script, bench.image, bench.work, Ours.level), {}, log)
    return last_json(log)


def run_rounds(bench: Bench, contenders: list[Contender], rounds: int) -> list[dict[str, t.Any]]:
    """All rounds; returns what the primitives took in each."""
    primitives = []
    for number in range(rounds):
        primitives.append(measure_primitives(bench))
        Round(bench, number, turns(contenders, number)).run()
    return primitives


def run_prune(bench: Bench, contenders: list[Contender], rounds: int, savesets: int) -> None:
    """Pruning, on a small image of its own."""
    image = bench.work / "prune.image"
    kinds = data.layout(_PRUNE_SIZE, data.DEFAULT_SHARES)
    data.make_image(image, _PRUNE_SIZE, data.DEFAULT_SHARES)
    small = dataclasses.replace(bench, image=image, used=used_extents(kinds, _PRUNE_SIZE))
    prune_rounds(small, contenders, rounds, savesets)
    image.unlink()


def machine() -> dict[str, t.Any]:
    """What the figures were measured on."""
    models = re.findall(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return {
        "processors": len(os.sched_getaffinity(0)),
        "processor": models[0] if models else platform.machine(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
    }


def filesystem(path: Path) -> str:
    """The type of the filesystem under ``path``."""
    done = subprocess.run(["findmnt", "-n", "-o", "FSTYPE", "-T", path], check=True, capture_output=True, text=True)
    return done.stdout.strip()


def check_room(work: Path, size: int) -> None:
    """Raises ContenderError when the work folder is in memory or has too little room."""
    if filesystem(work) in ("tmpfs", "ramfs", "overlay"):
        raise ContenderError(f"{work} is on {filesystem(work)}: name a folder on a disk filesystem with WORK=")
    free = shutil.disk_usage(work).free
    if free < _ROOM * size:
        raise ContenderError(
            f"{work} has {free >> 20} MiB free, and {_ROOM * size >> 20} MiB are needed: "
            "choose a smaller SIZE, or another folder with WORK="
        )


def parse_arguments() -> argparse.Namespace:
    """The command line."""
    default_shares = ",".join(f"{name}={share}" for name, share in data.DEFAULT_SHARES.items())
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=parse_size, default="4G", help="size of the image (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds (default: %(default)s)")
    parser.add_argument(
        "--savesets", type=int, default=100, help="savesets to prune, 0 for none (default: %(default)s)"
    )
    parser.add_argument("--chunks", type=int, default=4_000_000, help="chunks known to the memory test, 0 for none")
    parser.add_argument("--shares", type=data.parse_shares, default=default_shares, help="default: %(default)s")
    parser.add_argument("--peers", type=parse_peers, default="", help=f"of {','.join(PEERS)} (default: all)")
    parser.add_argument("--work", type=Path, default=Path("build/bench"), help="scratch folder (default: %(default)s)")
    parser.add_argument("--tools", type=Path, default=Path("build/bench-peers"), help="where the peers are installed")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"), help="result (default: %(default)s)")
    return parser.parse_args()


def run(arguments: argparse.Namespace, work: Path) -> dict[str, t.Any]:
    """Measure everything; returns what goes into the JSON file."""
    size: int = arguments.size
    about = machine()
    tools = arguments.tools.resolve()
    kinds: list[type[Contender]] = [Ours, OursCompact, *(PEERS[name] for name in arguments.peers)]
    contenders = [kind(work / kind.name, tools) for kind in kinds]
    versions = {contender.name: contender.version() for contender in contenders}
    used = used_extents(data.layout(size, arguments.shares), size)
    bench = Bench(work, work / "image", used)
    bench.say(f"making the image of {size >> 20} MiB")
    made = data.make_image(bench.image, size, arguments.shares)
    primitives = run_rounds(bench, contenders, arguments.rounds)
    bench.image.unlink()
    remembered = memory.run(bench, arguments.chunks) if arguments.chunks else None
    if arguments.savesets:
        run_prune(bench, contenders, arguments.rounds, arguments.savesets)

    rows = result.medians(bench.samples)
    changed = sum(length for _offset, length in scattered(used, INCREMENTAL[result.ONE_PERCENT], "count"))
    limits = [float(round_["limit_s"]) for round_ in primitives]
    ratios, reasons = result.ratios(rows, limits, changed, set(PEERS) - set(arguments.peers))
    return {
        "format": 1,
        "machine": {**about, "filesystem": filesystem(work)},
        "versions": versions,
        "remarks": {contender.name: contender.remark for contender in contenders if contender.remark},
        "image": {"size": size, "data": sum(length for _offset, length in used), "shares": made},
        "rounds": arguments.rounds,
        "savesets_pruned": arguments.savesets,
        "limit": {"seconds": statistics.median(limits), "formula": LIMIT_FORMULA, "rounds": primitives},
        "memory": remembered,
        "medians": [dataclasses.asdict(row) for row in rows],
        "samples": [dataclasses.asdict(sample) for sample in bench.samples],
        "ratios": ratios,
        "ratio_reasons": reasons,
    }


def report(content: dict[str, t.Any]) -> str:
    """The result for people."""
    image, about = content["image"], content["machine"]
    shares = ", ".join(f"{name} {length >> 20}" for name, length in image["shares"].items())
    rows = [result.Row(**row) for row in content["medians"]]
    lines = [
        f"image of {image['size'] >> 20} MiB: {shares}; medians of {content['rounds']} rounds",
        f"{about['processors']} processors ({about['processor']}), {about['filesystem']}",
        *(f"  {name}: {version}" for name, version in content["versions"].items()),
        *(f"  {name} {remark}" for name, remark in content["remarks"].items()),
        "",
        result.table(rows, image["data"]),
        "",
        f"the primitives allow a full backup in {content['limit']['seconds']:.2f} s",
    ]
    if content["memory"]:
        lines.append(memory.told(content["memory"]))
    return "\n".join([*lines, "", result.ratio_lines(content["ratios"], content["ratio_reasons"])])


def main() -> None:
    """Measure, print, write the JSON file; the work folder is removed however it ends."""
    arguments = parse_arguments()
    work: Path = arguments.work.resolve()
    if work.exists() and any(work.iterdir()):
        sys.exit(f"bench: {work} is not empty: remove it, or name another folder with WORK=")
    work.mkdir(parents=True, exist_ok=True)
    try:
        check_room(work, arguments.size)
        content = run(arguments, work)
    except (ContenderError, ValueError) as error:
        sys.exit(f"bench: {error}")
    finally:
        shutil.rmtree(work)
    arguments.json.parent.mkdir(parents=True, exist_ok=True)
    arguments.json.write_text(json.dumps(content, indent=2) + "\n")
    print(report(content))
    print(f"\nwritten to {arguments.json}")


if __name__ == "__main__":
    main()
