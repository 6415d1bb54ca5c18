# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all modules share that use the saveset engine. The engine itself does not depend on Ansible."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..host.jobs import FINISHED, Job
from ..saveset.base import deps
from ..saveset.base.errors import SavesetError

if TYPE_CHECKING:
    from ansible.module_utils.basic import AnsibleModule


def require_libraries(module: AnsibleModule) -> None:
    """Fail with the name of a library that this Python lacks."""
    try:
        deps.require()
    except SavesetError as error:
        module.fail_json(msg=f"{error}. The role openisb.backup.repository creates an environment that has it")


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
