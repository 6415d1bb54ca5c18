#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: saveset_pin
short_description: Keep savesets regardless of the retention policy
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Pins savesets, recording who wants them kept and why, or removes the pins.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
options:
  state:
    description: Whether the savesets should be pinned.
    type: str
    choices: [present, absent]
    default: present
  saveset_id:
    description: The saveset, by its id or the first digits of its id.
    type: str
  run_id:
    description: The savesets of this run.
    type: str
  servers:
    description: Only savesets of these servers.
    type: list
    elements: str
  who:
    description: Who wants them kept.
    type: str
  why:
    description: Why they should be kept.
    type: str
seealso:
  - module: openisb.backup.saveset_prune
"""

EXAMPLES = r"""
- name: Keep the savesets from before the migration
  openisb.backup.saveset_pin:
    repository: /var/lib/openisb/repository
    run_id: isb-20261123T021500Z-4f1c2a
    who: ada
    why: before the migration to the new storage
"""

RETURN = r"""
savesets:
  description: The savesets, each also with pin (who, why, when; null if it is not pinned).
  returned: success
  type: list
  elements: dict
"""

import dataclasses

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import failing_as, require_libraries
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)


def chosen(repository, params):
    """The requested savesets."""
    return [
        info
        for info in repository.savesets()
        if (params["run_id"] is None or info.run_id == params["run_id"])
        and (params["saveset_id"] is None or info.id.startswith(params["saveset_id"]))
        and (params["servers"] is None or info.volume.partition("/")[0] in params["servers"])
    ]


def pin_facts(pin):
    """A pin as the module returns it."""
    return {"who": pin.who, "why": pin.why, "when": pin.when} if pin else None


def apply(module, repository, info, pin):
    """Pin a saveset or remove its pin; return the pin that it then has."""
    params = module.params
    if params["state"] == "absent":
        if not module.check_mode:
            repository.unpin(info.id)
        return None
    if pin and (pin.who, pin.why) == (params["who"], params["why"]):
        return pin
    if module.check_mode:
        return dataclasses.replace(pin, who=params["who"], why=params["why"]) if pin else Planned(params)
    return repository.pin(info, params["who"], params["why"])


class Planned:
    """A pin that would be made."""

    def __init__(self, params):
        self.who = params["who"]
        self.why = params["why"]
        self.when = ""


def lines(savesets, pins):
    """The pins as text, one line each."""
    return "".join(
        "{} {}: {}, {}\n".format(info.volume, info.id, pin["who"], pin["why"])
        for info, pin in zip(savesets, pins)
        if pin
    )


def main():
    module = AnsibleModule(
        argument_spec=dict(
            REPOSITORY_ARGUMENTS,
            state={"type": "str", "choices": ["present", "absent"], "default": "present"},
            saveset_id={"type": "str"},
            run_id={"type": "str"},
            servers={"type": "list", "elements": "str"},
            who={"type": "str"},
            why={"type": "str"},
        ),
        required_one_of=[("saveset_id", "run_id")],
        mutually_exclusive=[("saveset_id", "run_id")],
        required_if=[("state", "present", ["who", "why"])],
        supports_check_mode=True,
    )
    require_libraries(module)
    with failing_as(module, "Repository {}".format(module.params["repository"])):
        repository = open_repository(module)
        savesets = chosen(repository, module.params)
        if not savesets or (module.params["saveset_id"] is not None and len(savesets) > 1):
            module.fail_json(
                msg="{} savesets match: give the run id, or more digits of the saveset's id (catalog.yml lists "
                "all)".format(len(savesets) or "No")
            )
        pins = repository.pins()
        before = [pin_facts(pins.get(info.id)) for info in savesets]
        after = [pin_facts(apply(module, repository, info, pins.get(info.id))) for info in savesets]
    module.exit_json(
        changed=before != after,
        savesets=[dict(saveset_facts(info), pin=pin) for info, pin in zip(savesets, after)],
        diff={"before": lines(savesets, before), "after": lines(savesets, after)},
    )


if __name__ == "__main__":
    main()
