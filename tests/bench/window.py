# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The freeze window of 3 and of 30 servers over SSH, measured with the product's own action (make bench-window).

python -m bench.window [--samples 10] [--work DIR] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import time
import typing as t
from pathlib import Path

# Before anything of Ansible is imported: its settings are read once, at import.
ROOT = Path(__file__).resolve().parents[2]
os.environ["ANSIBLE_CONFIG"] = str(ROOT / "ansible.cfg")

from ansible.plugins.loader import init_plugin_loader  # noqa: E402

init_plugin_loader([str(ROOT / "collections")])

from . import window_result  # noqa: E402
from .window_lab import LightServers, RealLab, Servers, run  # noqa: E402


def new_run_id() -> str:
    """A run id like those of runs."""
    return f"isb-{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{secrets.token_hex(3)}"


def take(servers: Servers) -> window_result.Sample:
    """One consistency point of these servers."""
    run_id, path = new_run_id(), servers.folder / "answer.json"
    path.unlink(missing_ok=True)
    options = [part for path in servers.inventories for part in ("-i", str(path))]
    options += ["-e", f"lab_dir={servers.folder}"]
    options += ["-e", f"window_run_id={run_id}", "-e", f"window_answer={path}"]
    run(["ansible-playbook", *options, str(Path(__file__).with_name("window.yml"))], servers.folder)
    answer = json.loads(path.read_text())
    return window_result.sample(answer, run_id, list(answer["freeze"]["servers"]))


def measure(all_servers: list[Servers], samples: int) -> dict[str, list[window_result.Sample]]:
    """``samples`` of each in turn.  The first one of each, which fills caches, does not count."""
    taken: dict[str, list[window_result.Sample]] = {servers.name: [] for servers in all_servers}
    for number in range(samples + 1):
        for servers in all_servers:
            found = take(servers)
            if number:
                taken[servers.name].append(found)
            print(
                f"{'sample ' + str(number) if number else 'warm-up'}: {servers.name} servers, "
                f"{found['window']:.0f} ms + storage {found['storage_call']:.0f} ms",
                flush=True,
            )
    return taken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=10)
    parser.add_argument("--work", type=Path, default=ROOT / "build/window")
    parser.add_argument("--json", type=Path, default=ROOT / "build/window.json")
    given = parser.parse_args()
    work = given.work.resolve()
    all_servers: list[Servers] = [RealLab(work / "lab"), LightServers(work / "light", 30)]
    try:
        for servers in all_servers:
            servers.start()
        taken = measure(all_servers, given.samples)
    finally:
        for servers in all_servers:
            servers.stop()
    found: dict[str, t.Any] = window_result.summary(taken)
    machine = f"{os.cpu_count()} processors, Linux {platform.release()}; load of the machine {os.getloadavg()[0]:.1f}"
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(
        json.dumps({**found, "parts": window_result.PARTS, "samples": taken, "machine": machine}, indent=2) + "\n"
    )
    print(machine, window_result.table(taken), sep="\n")
    print("3 servers: the lab's, with databases under load; 30 servers: two ext4 each, no databases, no load")
    print(*(found["targets_missed"] or ["all targets are met"]), sep="\n")
    return 1 if found["targets_missed"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
