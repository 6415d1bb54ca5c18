# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options of modules that name a repository and its secrets, and how a module opens it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..host import confidential
from ..saveset.base.errors import InvalidValue, NotEncrypted, WrongSecret
from ..saveset.base.memory import clear_swap, keep_private
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


def _encoded(text: str | None) -> bytes | None:
    return text.encode() if text else None


def read_key(path: str) -> bytes:
    """The content of a key file."""
    try:
        with open(path, "rb") as stream:
            return stream.read(KEY_FILE_MAX)
    except OSError as error:
        raise InvalidValue(path, error.strerror or str(error), "Name the PEM file of the private key") from error


def warn_of_swap(module: AnsibleModule) -> None:
    """Warn where keys and decrypted data in this host's memory might be swapped to a disk in clear."""
    areas = clear_swap()
    if areas:
        module.warn(
            f"This host swaps to {', '.join(areas)} without encryption, so keys and decrypted data may be written to "
            "that disk in clear: encrypt its swap (crypttab's option swap), or turn it off"
        )
