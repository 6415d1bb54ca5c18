# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Keeps the head in the repository, and a copy of it on the controller, which its user writes: no host takes part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.openisb.backup.plugins.module_utils.host import records
from ansible_collections.openisb.backup.plugins.module_utils.journal.head import (
    Head,
    HeadError,
    decode,
    encode,
    object_name,
)


class ActionModule(ActionBase):
    """Runs the module, and then writes the copy."""

    def run(self, tmp: None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        args = self._task.args
        result: dict[str, Any] = self._execute_module(module_args=args, task_vars=task_vars)
        if not args.get("copy_to") or self._task.check_mode or result.get("failed") or result.get("unreachable"):
            return result
        try:
            write_copy(Path(args["copy_to"]), args["listener"], result["head"])
        except (HeadError, OSError) as error:
            result.update(failed=True, msg=f"The head of the journal was not copied to the controller: {error}")
        return result


def write_copy(folder: Path, listener: str, head: Head) -> None:
    """Replace the copy of the head in ``folder``. Raises HeadError if the host has returned something else, OSError."""
    decode(encode(head), listener)
    folder.mkdir(parents=True, exist_ok=True)
    records.write(str(folder / Path(object_name(listener)).name), head, lasting=True)
