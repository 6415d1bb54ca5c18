# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Options of modules that hold a secret, and how one reaches a module that runs asynchronously.

Ansible writes the arguments of an asynchronous module into files, on the controller and on the host. So the action of
such a module (plugin_utils/confidential.py) takes the secrets out of them, puts them into a file in memory that only
the module's user can read, and names that file in the module's environment. The module reads it once and removes it.

Runs on every kind of host, so: the standard library alone, Python 3.8.
"""

from __future__ import annotations

import json
import os
import stat

from ansible.module_utils.basic import env_fallback

#: The names of all options of this collection's modules that hold a secret.
NAMES = ("passphrase", "new_passphrase", "private_key_password", "psk", "password", "secret")
#: The environment's variable that names the file.
VARIABLE = "OPENISB_HANDED"
#: Bytes: far more than secrets have.
LIMIT = 1 << 16

_handed = {}


def option(name, *environment):
    """The argument_spec of the secret option ``name`` (of NAMES); ``environment``: variables to take it from, too."""
    return {"type": "str", "no_log": True, "fallback": (_find, [name, *environment])}


def _find(name, *environment):
    """Ansible's fallback for an option that was not given."""
    _receive()
    if name in _handed:
        return _handed[name]
    return env_fallback(*environment)


def _receive():
    """Read what was handed over, where something was, and leave no trace of it."""
    path = os.environ.pop(VARIABLE, None)
    if not path:
        return
    try:
        _handed.update(_read(path))
        os.unlink(path)
    except (OSError, ValueError) as error:
        raise RuntimeError(f"the secrets of this module, handed over in {path}, cannot be read: {error}") from error


def _read(path):
    """The secrets in a file that must be this user's own, for a name in a folder of everybody could be anybody's."""
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid() or status.st_size > LIMIT:
            raise ValueError("it is no small file of this user's own")
        return json.loads(stream.read(LIMIT))
