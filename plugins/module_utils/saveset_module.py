# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that use the saveset engine have in common. The engine itself knows nothing of Ansible."""

from __future__ import annotations

import contextlib
import datetime
import os

from ansible.module_utils.basic import env_fallback
from ansible_collections.openisb.backup.plugins.module_utils.answers import KEY
from ansible_collections.openisb.backup.plugins.module_utils.jobs import FINISHED, Job
from ansible_collections.openisb.backup.plugins.module_utils.nbd_addresses import check_of_host
from ansible_collections.openisb.backup.plugins.module_utils.saveset import deps
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import InvalidValue, SavesetError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import Repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.secret import Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import open_store

REPOSITORY_ARGUMENTS = {
    "repository": {"type": "path", "required": True},
    "passphrase": {"type": "str", "no_log": True, "fallback": (env_fallback, ["OPENISB_PASSPHRASE"])},
    "private_key": {"type": "path", "no_log": False},
    "private_key_password": {
        "type": "str",
        "no_log": True,
        "fallback": (env_fallback, ["OPENISB_PRIVATE_KEY_PASSWORD"]),
    },
}

KEY_FILE_MAX = 1 << 16

JOB_ARGUMENTS = {
    "job": {"type": "str", "required": True},
    "run_dir": {"type": "path", "default": "/run/openisb"},
}


def require_libraries(module):
    """Fail with the name of the library that this Python lacks."""
    try:
        deps.require()
    except SavesetError as error:
        module.fail_json(msg=f"{error}. The role openisb.backup.repository makes an environment that has it")


def require_host(module, option):
    """Fail where an address comes from a host, and is none of an export of that host; or where its key is none."""
    address, host, key = (module.params[name] for name in (option, "host", "psk"))
    try:
        if host is not None:
            check_of_host(address, host)
    except ValueError as error:
        module.fail_json(msg=f"{option}: {error}")
    if key and not (KEY.fullmatch(key) and address.startswith("nbds://")):
        module.fail_json(msg=f"psk: it is not 64 hex digits, or {option} has no nbds:// and so no key")


def secret_of(module):
    """The secret that the module was given."""
    path = module.params["private_key"]
    return Secret(
        passphrase=_encoded(module.params["passphrase"]),
        private_key=read_key(path) if path else None,
        private_key_password=_encoded(module.params["private_key_password"]),
    )


def read_key(path):
    """The content of a key's file."""
    try:
        with open(path, "rb") as stream:
            return stream.read(KEY_FILE_MAX)
    except OSError as error:
        raise InvalidValue(path, error.strerror, "Name the PEM file of the private key") from error


def _encoded(text):
    return text.encode() if text else None


def open_repository(module):
    """The repository that the module was given."""
    return Repository.open(open_store(module.params["repository"]), secret_of(module))


@contextlib.contextmanager
def running_job(module, what, state):
    """The job that the module was given, from ``state`` on until it has ended; errors as failing_as() tells them."""
    job = Job(module.params["run_dir"], module.params["job"])
    job.sweep()
    job.tell(state)
    try:
        with failing_as(module, what):
            yield job
    finally:
        job.tell(FINISHED)


@contextlib.contextmanager
def failing_as(module, what):
    """Turn the engine's errors into the module's, as "<what>: <thing, cause and way out>"."""
    try:
        yield
    except (SavesetError, OSError) as error:
        module.fail_json(msg=f"{what}: {error}")


def key_facts(info):
    """A key as modules return it: nothing of it is secret."""
    return {
        "id": info.id,
        "method": info.method,
        "created": info.created,
        "label": info.label,
        "public_key": info.public_key,
        "reads": info.gives_master,
    }


def saveset_facts(info):
    """A saveset as modules return it: plain values, times as ISO 8601 in UTC."""
    return {
        "id": info.id,
        "volume": info.volume,
        "server": info.volume.partition("/")[0],
        "run_id": info.run_id,
        "time": info.time.astimezone(datetime.timezone.utc).isoformat(),
        "verdict": info.verdict,
        "size": info.size,
        "digest": info.digest,
        "stats": info.stats.as_dict(),
        "metadata": info.metadata,
        "origin": info.origin,
    }


@contextlib.contextmanager
def nbd_key_file(uri, psk, run_dir, name):
    """The NBD address to use, with the export's key in a file that only root can read, for as long as it is needed."""
    if not psk:
        yield uri
        return
    os.makedirs(os.path.join(run_dir, "keys"), mode=0o700, exist_ok=True)
    path = os.path.join(run_dir, "keys", name + ".psk")
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as stream:
            stream.write(f"openisb:{psk}\n")
        yield f"{uri}?tls-psk-file={path}"
    finally:
        if os.path.exists(path):
            os.unlink(path)
