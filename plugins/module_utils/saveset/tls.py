# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which cipher nbdkit's TLS takes.

With pre-shared keys GnuTLS prefers ChaCha20, which it computes without the processor's help: several times slower than
AES-GCM on a processor that has AES.  nbdkit has no option for it, so it is told by GnuTLS's own settings.

Runs on storage hosts too, so: the standard library alone, Python 3.8.
"""

from __future__ import annotations

import os
import re

VARIABLE = "GNUTLS_SYSTEM_PRIORITY_FILE"

_POLICY = "[overrides]\ntls-disabled-cipher = chacha20-poly1305\n"
#: Where sites and distributions keep their own settings: they stand, whatever they cost.
_SITES = ("/etc/gnutls/config", "/etc/crypto-policies/back-ends/gnutls.config", "/etc/gnutls/default-priorities")


def prefer_aes(path: str) -> dict[str, str]:
    """The environment that makes GnuTLS take AES, with the settings that it names written to ``path``.

    Empty, and nothing written, where the processor has no AES, or the machine has settings of its own.
    """
    if not _has_aes() or VARIABLE in os.environ or any(map(os.path.exists, _SITES)):
        return {}
    with open(path, "w", encoding="ascii") as stream:
        stream.write(_POLICY)
    return {VARIABLE: path}


def _has_aes() -> bool:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
        return re.search(r"^(flags|Features)\s*:.*\baes\b", stream.read(), re.MULTILINE) is not None
