# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The limit of open files on the controller, which talks to all servers at once."""

from __future__ import annotations

import resource

#: Descriptors for talking to one host: the pipes of its ssh, their pollers, a forwarded socket.
OF_A_HOST = 8
#: Descriptors that Ansible has open besides.
OF_ANSIBLE = 100
ENOUGH = 65536


def allow_all() -> None:
    """Raise this process's soft limit of open files to the hard limit, or to all that it could ever need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH if hard == resource.RLIM_INFINITY else min(hard, ENOUGH)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def problems(hosts: int) -> list[str]:
    """Why the controller cannot talk to so many hosts at once."""
    allowed, needed = resource.getrlimit(resource.RLIMIT_NOFILE)[1], OF_ANSIBLE + OF_A_HOST * hosts
    if allowed == resource.RLIM_INFINITY or allowed >= needed:
        return []
    cause = f"a process may have {allowed} files open here, and one that freezes {hosts} hosts at once needs {needed}"
    return [f"the controller: {cause}: raise the hard limit (ulimit -Hn, or nofile in /etc/security/limits.conf)"]
