# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The M database of each file server, created with GT.M.

The global directory and the database are both on the LUN, so a copy of the LUN is a complete database.
"""

from __future__ import annotations

from pathlib import Path

import hosts
from shell import LabError
from spec import DATABASE, DIRECTORY, Host, Lab

DESIGN = """\
change -segment DEFAULT -block_size=4096 -allocation=10000 -extension=2500 -global_buffer_count=4096 -file={file}
change -region DEFAULT -key_size=255 -record_size=4000
exit
"""


def environment(lab: Lab, host: Host) -> dict[str, str]:
    """Return GT.M's environment variables, as the host sees the paths."""
    routines = str(lab.folder / "shared/m") if lab.plain else "/lab/m"
    return {
        "gtm_dist": lab.gtm_dist,
        "gtmgbldir": path(lab, host, DIRECTORY),
        "gtmroutines": f"{routines}/obj({routines}/src) {lab.gtm_dist}/libgtmutil.so {lab.gtm_dist}",
        "gtm_tmp": lab.on_host(host, "/tmp"),
    }


def path(lab: Lab, host: Host, name: str) -> str:
    """Return the path of a file of the database, as the host sees it."""
    return lab.on_host(host, f"/srv/m/{name}")


def mark_open(lab: Lab, host: Host) -> None:
    """Record that the database is in use, and in which life of the host."""
    _open_mark(lab, host).write_text(hosts.life(lab, host), encoding="utf-8")


def crashed(lab: Lab) -> list[str]:
    """Return servers that ended with their database open: when a host ends, its database's shared memory is lost.

    Other servers know entries that such a server has lost, so repairing one database would not make them agree again.
    """
    found = []
    for host in lab.database_servers:
        opened = _open_mark(lab, host)
        if opened.exists() and opened.read_text(encoding="utf-8") != hosts.life(lab, host):
            found.append(host.name)
    return found


def drop(lab: Lab) -> None:
    """Make `present` recreate all databases. The load must have ended."""
    for host in lab.database_servers:
        hosts.seen_from_machine(lab, host, "/srv/m/seeded").unlink(missing_ok=True)
        _open_mark(lab, host).unlink(missing_ok=True)


def close(lab: Lab, host: Host) -> None:
    """Close the database of a server whose load has ended."""
    if _open_mark(lab, host).exists():
        hosts.enter(lab, host, [f"{lab.gtm_dist}/mupip", "rundown", "-region", "*"], env=environment(lab, host))
        _open_mark(lab, host).unlink()


def present(lab: Lab) -> list[str]:
    """Create the missing databases; return the changes."""
    changes = []
    for host in lab.database_servers:
        database = hosts.seen_from_machine(lab, host, f"/srv/m/{DATABASE}")
        seeded = database.with_name("seeded")
        if not seeded.exists():
            for leftover in (database, database.with_name(DIRECTORY)):
                leftover.unlink(missing_ok=True)
            _create(lab, host)
            seeded.touch()
            changes.append(f"{host.name}: database")
    return changes


def release(lab: Lab, host: Host) -> None:
    """Thaw a database that was left frozen; its writers would wait forever. There may be no database yet."""
    hosts.try_on(lab, host, [f"{lab.gtm_dist}/mupip", "freeze", "-off", "-override", "*"], env=environment(lab, host))


def m(lab: Lab, host: Host, code: str) -> str:
    """Run a line of M on a host and return its output."""
    return hosts.enter(lab, host, [f"{lab.gtm_dist}/mumps", "-run", "%XCMD", code], env=environment(lab, host))


def _open_mark(lab: Lab, host: Host) -> Path:
    return lab.host_folder(host) / "database-open"


def _create(lab: Lab, host: Host) -> None:
    env = environment(lab, host)
    design = DESIGN.format(file=path(lab, host, DATABASE))
    hosts.enter(lab, host, [f"{lab.gtm_dist}/mumps", "-run", "GDE"], text=design, env=env)
    hosts.enter(lab, host, [f"{lab.gtm_dist}/mupip", "create"], env=env)
    m(lab, host, f'do seed^LABLOAD("{host.name}",{lab.load.keep},{lab.load.records})')
    if m(lab, host, 'write ^LAB("server")').strip() != host.name:
        raise LabError(f"{host.name}: the new database is not the requested one: {path(lab, host, DATABASE)}")
