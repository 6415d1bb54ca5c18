# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules that use the saveset engine have in common. The engine itself knows nothing of Ansible."""

from __future__ import annotations

import contextlib
import datetime
import os

from ansible_collections.openisb.backup.plugins.module_utils import confidential
from ansible_collections.openisb.backup.plugins.module_utils.answers import KEY
from ansible_collections.openisb.backup.plugins.module_utils.jobs import FINISHED, Job
from ansible_collections.openisb.backup.plugins.module_utils.nbd_addresses import check_of_host
from ansible_collections.openisb.backup.plugins.module_utils.saveset import deps
from ansible_collections.openisb.backup.plugins.module_utils.saveset.commit import utc
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import (
    InvalidValue,
    NotEncrypted,
    SavesetError,
)
from ansible_collections.openisb.backup.plugins.module_utils.saveset.memory import clear_swap, keep_private
from ansible_collections.openisb.backup.plugins.module_utils.saveset.order import Place
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import NO_ENCRYPTION, Repository
from ansible_collections.openisb.backup.plugins.module_utils.saveset.secret import Secret
from ansible_collections.openisb.backup.plugins.module_utils.saveset.store import open_store

REPOSITORY_ARGUMENTS = {
    "repository": {"type": "path", "required": True},
    "passphrase": confidential.option("passphrase", "OPENISB_PASSPHRASE"),
    "private_key": {"type": "path", "no_log": False},
    "private_key_password": confidential.option("private_key_password", "OPENISB_PRIVATE_KEY_PASSWORD"),
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
    keep_private()
    path = module.params["private_key"]
    return Secret(
        passphrase=_encoded(module.params["passphrase"]),
        private_key=read_key(path) if path else None,
        private_key_password=_encoded(module.params["private_key_password"]),
        unencrypted=module.params["encryption"] == NO_ENCRYPTION,
    )


def warn_of_swap(module):
    """Say where what this host has in memory, keys and what was decrypted, might get to a disk in clear."""
    areas = clear_swap()
    if areas:
        module.warn(
            f"This host swaps to {', '.join(areas)} without encryption, so keys and what was decrypted may get to that "
            "disk in clear: encrypt its swap (crypttab's option swap), or turn it off"
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
def with_nbd_key(uri, psk):
    """The NBD address to use, which names the export's key as a file in this process's memory, while it is needed."""
    if not psk:
        yield uri
        return
    descriptor = os.memfd_create("psk", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"openisb:{psk}\n".encode("ascii"))
        yield f"{uri}?tls-psk-file=/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
