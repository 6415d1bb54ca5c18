# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secret options of modules, and how secrets reach a module that runs asynchronously.

Ansible writes the arguments of an asynchronous module into files, on the controller and on the host. So the action of
such a module (plugin_utils/confidential.py) takes the secrets out of them, puts them into a file in memory that only
the module's user can read, and names that file in the module's environment. The module reads it once and removes it.

Runs on every kind of host: standard library only, Python 3.8.
"""

from __future__ import annotations

import json
import os
import stat
from typing import Any

from ansible.module_utils.basic import env_fallback

#: The names of all options of this collection's modules that hold a secret.
NAMES = ("passphrase", "new_passphrase", "private_key_password", "psk", "psks", "password", "secret")
#: The environment variable that names the file.
VARIABLE = "OPENISB_HANDED"
#: Bytes: far more than secrets need.
LIMIT = 1 << 16

#: A dict of secrets: Ansible puts an option's fallback into the set of what it hides, and then each value in it.
_Secrets = type("_Secrets", (dict,), {"__hash__": object.__hash__})

_handed: dict[str, Any] = {}


def option(name: str, *environment: str, kind: str = "str") -> dict[str, Any]:
    """The argument_spec of the secret option ``name`` (of NAMES); ``environment``: variables it may also come from.

    ``kind``: ``str``, or ``dict`` for several secrets by what they are for.
    """
    return {"type": kind, "no_log": True, "fallback": (_find, [name, *environment])}


def _find(name: str, *environment: str) -> Any:
    """Ansible's fallback for an option that was not given."""
    _receive()
    if name in _handed:
        return _Secrets(_handed[name]) if isinstance(_handed[name], dict) else _handed[name]
    return env_fallback(*environment)


def _receive() -> None:
    """Read the secrets that were handed over, if any, and remove the file."""
    path = os.environ.pop(VARIABLE, None)
    if not path:
        return
    try:
        _handed.update(_read(path))
        os.unlink(path)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"the secrets of this module, handed over in {path}, cannot be read: {error}") from error


def _read(path: str) -> Any:
    """Read the secrets from a file that must be this user's own: anyone can create files in a shared folder."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > LIMIT:
            raise ValueError("it is not a small file of this user's own")
        return json.loads(stream.read(LIMIT))
