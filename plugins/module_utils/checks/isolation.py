# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shuts off the process of one check: what it mounts, shares in memory or serves is its own, and goes with it."""

from __future__ import annotations

import ctypes
import os

from .errors import CheckFailed

PR_SET_CHILD_SUBREAPER = 36
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWNET = 0x00020000, 0x08000000, 0x40000000
MS_REC, MS_SLAVE = 0x4000, 1 << 19


MOUNTS, SHARED_MEMORY, NETWORK = "mounts", "shared memory", "network"


def shut_off(network: bool) -> list[str]:
    """Shut off this process, and all that it starts, as far as this user and this host allow.

    Mounts: its own are seen by nobody else and end with it; those that the host takes away go here too. Shared memory:
    its own, so that a copied database cannot be taken for the one whose shared memory it names. Network, unless
    ``network``: none at all. Processes that lose their parent become children of this one. Returns what is not shut
    off.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    shared = [] if _own_mounts(libc) else [MOUNTS]
    shared += [] if libc.unshare(CLONE_NEWIPC) == 0 else [SHARED_MEMORY]
    if not network:
        shared += [] if libc.unshare(CLONE_NEWNET) == 0 else [NETWORK]
    return shared


def _own_mounts(libc: ctypes.CDLL) -> bool:
    if libc.unshare(CLONE_NEWNS) != 0:
        return False
    if libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_SLAVE), None) != 0:
        why = os.strerror(ctypes.get_errno())
        raise CheckFailed(f"what it mounts cannot be kept from this host's own mounts: {why}")
    return True
