# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that use the saveset engine have in common. The engine itself knows nothing of Ansible."""

from __future__ import annotations

import contextlib
import datetime
import os

from ansible.module_utils.basic import env_fallback
from ansible_collections.openisb.backup.plugins.module_utils.jobs import FINISHED, Job
from ansible_collections.openisb.backup.plugins.module_utils.saveset import deps
from ansible_collections.openisb.backup.plugins.module_utils.saveset.commit import utc
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import (
    InvalidValue,
    NotEncrypted,
    SavesetError,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.order import Place
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import NO_ENCRYPTION, Repository
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
    "encryption": {"type": "str", "choices": ["aes-256-gcm", "none"], "default": "aes-256-gcm"},
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


def secret_of(module):
    """The secret that the module was given."""
    path = module.params["private_key"]
    return Secret(
        passphrase=_encoded(module.params["passphrase"]),
        private_key=read_key(path) if path else None,
        private_key_password=_encoded(module.params["private_key_password"]),
        unencrypted=module.params["encryption"] == NO_ENCRYPTION,
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
    """The repository that the module was given; who asked for one without encryption is told what that means."""
    secret = secret_of(module)
    try:
        repository = Repository.open(open_store(module.params["repository"]), secret)
    except NotEncrypted as error:
        if not secret.is_empty:
            raise
        way_out = "Set repository_encryption (of modules: encryption) to 'none' if it is what you expect"
        raise NotEncrypted(error.thing, error.cause, way_out) from error
    if repository.encryption == NO_ENCRYPTION:
        module.warn(
            f"Repository {repository.location} is not encrypted: nothing proves who wrote it, or that it was not "
            "changed on purpose"
        )
    return repository


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
        "sequence": info.sequence,
        "time": info.time.astimezone(datetime.timezone.utc).isoformat(),
        "verdict": info.verdict,
        "size": info.size,
        "digest": info.digest,
        "stats": info.stats.as_dict(),
        "metadata": info.metadata,
        "origin": info.origin,
    }


def known_places(known):
    """What the journal knows, by the savesets' ids, as the engine takes it; None where there is no journal."""
    if known is None:
        return None
    try:
        times = [datetime.datetime.fromisoformat(entry["time"]) for entry in known]
        return {
            entry["id"]: Place(entry["volume"], entry["sequence"], utc(time), entry["id"])
            for entry, time in zip(known, times)
        }
    except ValueError as error:
        raise InvalidValue("known", f"a time in it is not ISO 8601 ({error})", "Pass what the journal tells") from error


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
