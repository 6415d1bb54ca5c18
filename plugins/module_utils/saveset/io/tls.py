# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The cipher of nbdkit's TLS.

With pre-shared keys GnuTLS prefers ChaCha20, which has no hardware acceleration: several times slower than AES-GCM on
a CPU with AES instructions.  nbdkit has no option for it, so GnuTLS's own settings are used.

Standard library only, Python 3.8: this also runs on storage hosts.
"""

from __future__ import annotations

import os
import re

VARIABLE = "GNUTLS_SYSTEM_PRIORITY_FILE"

_POLICY = "[overrides]\ntls-disabled-cipher = chacha20-poly1305\n"
#: The settings of sites and distributions: they take precedence, even if that is slow.
_SITES = ("/etc/gnutls/config", "/etc/crypto-policies/back-ends/gnutls.config", "/etc/gnutls/default-priorities")


def prefer_aes(path: str) -> dict[str, str]:
    """The environment that makes GnuTLS use AES; the settings file that it names is written to ``path``.

    Empty, and nothing is written, if the CPU has no AES instructions or the machine has its own settings.
    """
    if not _has_aes() or VARIABLE in os.environ or any(map(os.path.exists, _SITES)):
        return {}
    with open(path, "w", encoding="ascii") as stream:
        stream.write(_POLICY)
    return {VARIABLE: path}


def _has_aes() -> bool:
    with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as stream:
        return re.search(r"^(flags|Features)\s*:.*\baes\b", stream.read(), re.MULTILINE) is not None
