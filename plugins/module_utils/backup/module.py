# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared code of the modules that use the saveset engine. The engine itself does not depend on Ansible."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..host import confidential
from ..host.jobs import FINISHED, Job
from ..host.nbd_addresses import KEY, check_of_host
from ..saveset.access.keyfile import KeyInfo
from ..saveset.base import deps
from ..saveset.base.errors import InvalidValue, NotEncrypted, SavesetError, WrongSecret
from ..saveset.base.memory import clear_swap, keep_private
from ..saveset.format.commit import SavesetInfo, utc
from ..saveset.format.order import Place
from ..saveset.keys.secret import Secret
from ..saveset.repository import NO_ENCRYPTION, Repository
from ..saveset.store.registry import open_store

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule

REPOSITORY_ARGUMENTS = {
    "repository": {"type": "path", "default": "/var/lib/openisb/repository"},
    "passphrase": confidential.option("passphrase", "OPENISB_PASSPHRASE"),
    "private_key": {"type": "path", "no_log": False},
    "private_key_password": confidential.option("private_key_password", "OPENISB_PRIVATE_KEY_PASSWORD"),
    "encryption": {"type": "str", "choices": ["aes-256-gcm", "none"], "default": "aes-256-gcm"},
}

KEY_FILE_MAX = 1 << 16


def require_libraries(module: AnsibleModule) -> None:
    """Fail with the name of a library that this Python lacks."""
    try:
        deps.require()
    except SavesetError as error:
        module.fail_json(msg=f"{error}. The role openisb.backup.repository creates an environment that has it")


def require_host(module: AnsibleModule, option: str) -> None:
    """Fail where the address in an option is not that of an export of the given host, or where its key is invalid."""
    try:
        check_export(option, *(module.params[name] for name in (option, "host", "psk")))
    except ValueError as error:
        module.fail_json(msg=str(error))


def check_export(option: str, address: str, host: str | None, key: str | None) -> None:
    """Raise ValueError unless the address in ``option`` is that of an export of ``host``, if given, and has the key."""
    try:
        if host is not None:
            check_of_host(address, host)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error
    if key and not (KEY.fullmatch(key) and address.startswith("nbds://")):
        raise ValueError(f"psk: it is not 64 hex digits, or {option} has no nbds:// and so no key")


def secret_of(module: AnsibleModule) -> Secret:
    """The secret that the module was given."""
    keep_private()
    path = module.params["private_key"]
    return Secret(
        passphrase=_encoded(module.params["passphrase"]),
        private_key=read_key(path) if path else None,
        private_key_password=_encoded(module.params["private_key_password"]),
        unencrypted=module.params["encryption"] == NO_ENCRYPTION,
    )


def warn_of_swap(module: AnsibleModule) -> None:
    """Warn where keys and decrypted data in this host's memory might be swapped to a disk in clear."""
    areas = clear_swap()
    if areas:
        module.warn(
            f"This host swaps to {', '.join(areas)} without encryption, so keys and decrypted data may be written to "
            "that disk in clear: encrypt its swap (crypttab's option swap), or turn it off"
        )


def read_key(path: str) -> bytes:
    """The content of a key file."""
    try:
        with open(path, "rb") as stream:
            return stream.read(KEY_FILE_MAX)
    except OSError as error:
        raise InvalidValue(path, error.strerror or str(error), "Name the PEM file of the private key") from error


def _encoded(text: str | None) -> bytes | None:
    return text.encode() if text else None


def open_repository(module: AnsibleModule) -> Repository:
    """Open the repository that the module was given, with a warning where it is not encrypted."""
    secret = secret_of(module)
    try:
        repository = Repository.open(open_store(module.params["repository"]), secret)
    except NotEncrypted as error:
        if not secret.is_empty:
            raise
        way_out = "Set repository_encryption (of modules: encryption) to 'none' if that is what you expect"
        raise NotEncrypted(error.thing, error.cause, way_out) from error
    except WrongSecret as error:
        if not secret.is_empty:
            raise
        way_out = (
            "Set OPENISB_PASSPHRASE in the environment of ansible-playbook, or repository_passphrase or "
            "repository_private_key in the inventory (of modules: passphrase, private_key)"
        )
        raise WrongSecret(error.thing, f"{error.cause}, and no secret was given", way_out) from error
    repository.on_warning = module.warn
    if repository.encryption == NO_ENCRYPTION:
        module.warn(
            f"Repository {repository.location} is not encrypted: nothing proves who wrote it, or that it was not "
            "changed on purpose"
        )
    return repository


@contextlib.contextmanager
def running_job(module: AnsibleModule, what: str, state: str) -> Iterator[Job]:
    """Run the module's job, recorded from ``state`` on until it has ended; errors as in failing_as()."""
    job = Job(module.params["run_dir"], module.params["job"])
    job.sweep()
    job.tell(state)
    try:
        with failing_as(module, what):
            yield job
    finally:
        job.tell(FINISHED)


@contextlib.contextmanager
def failing_as(module: AnsibleModule, what: str) -> Iterator[None]:
    """Turn the engine's errors into the module's, as "<what>: <thing, cause and remedy>"."""
    try:
        yield
    except (SavesetError, OSError) as error:
        module.fail_json(msg=f"{what}: {error}")


def key_facts(info: KeyInfo) -> dict[str, Any]:
    """A key as modules return it; none of it is secret."""
    return {
        "id": info.id,
        "method": info.method,
        "created": info.created,
        "label": info.label,
        "public_key": info.public_key,
        "reads": info.gives_master,
    }


def saveset_facts(info: SavesetInfo) -> dict[str, Any]:
    """A saveset as modules return it: plain values, times as ISO 8601 in UTC."""
    return {
        "id": info.id,
        "volume": info.volume,
        "server": info.volume.partition("/")[0],
        "run_id": info.run_id,
        "sequence": info.sequence,
        "time": info.time.astimezone(datetime.UTC).isoformat(),
        "verdict": info.verdict,
        "size": info.size,
        "digest": info.digest,
        "stats": info.stats.as_dict(),
        "metadata": info.metadata,
        "origin": info.origin,
    }


def known_places(known: list[dict[str, Any]] | None) -> dict[str, Place] | None:
    """What the journal knows, by saveset id, in the engine's form; None where there is no journal."""
    if known is None:
        return None
    try:
        times = [datetime.datetime.fromisoformat(entry["time"]) for entry in known]
        return {
            entry["id"]: Place(entry["volume"], entry["sequence"], utc(time), entry["id"])
            for entry, time in zip(known, times, strict=True)
        }
    except ValueError as error:
        raise InvalidValue("known", f"a time in it is not ISO 8601 ({error})", "Pass what the journal says") from error


@contextlib.contextmanager
def with_nbd_key(uri: str, psk: str | None) -> Iterator[str]:
    """Yield the NBD address to use, which names the export's key as a temporary file in this process's memory."""
    if not psk:
        yield uri
        return
    descriptor = os.memfd_create("psk", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, f"openisb:{psk}\n".encode("ascii"))
        yield f"{uri}?tls-psk-file=/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
