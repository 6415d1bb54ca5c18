# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: undivided
short_description: The hosts of a playbook's first play, unless a part of the playbook would be skipped
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Belongs in C(hosts) of the first play of a playbook. Ansible evaluates that before it applies a limit, and whatever
    the tags. If the playbook would not be run as a whole, this stops it, and says why and what to do.
  - A part is skipped because of a limit, tags, tags to skip that occur in this collection, a task to start at, going
    step by step, a slice of an AWX job, or a group without hosts. Each of these would end successfully without having
    done what was asked for.
options:
  _terms:
    description: The hosts of the play.
    type: list
    elements: str
    required: true
  groups:
    description: Groups that must have a host besides those of the play.
    type: list
    elements: str
    default: []
  tags:
    description: Tags with which a part of the playbook may be requested.
    type: list
    elements: str
    default: []
  instead:
    description: What to use in place of a limit.
    type: str
    default: ""
"""

EXAMPLES = r"""
- name: Check the inventory
  hosts: "{{ lookup('openisb.backup.undivided', 'localhost', groups=['file_servers']) }}"
  gather_facts: false
"""

RETURN = r"""
_raw:
  description: The hosts, as they were given.
  type: list
  elements: str
"""


from ansible import context
from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.openisb.backup.plugins.plugin_utils.undivided import problems


class LookupModule(LookupBase):
    """Looks at the command line, whatever a limit leaves out."""

    def run(self, terms, variables=None, **kwargs):
        self.set_options(var_options=variables, direct=kwargs)
        hosts = [*self.get_option("groups"), *terms]
        tags, instead = self.get_option("tags"), self.get_option("instead")
        found = problems(context.CLIARGS, variables or {}, hosts, tags, instead)
        if found:
            text = "; ".join(found)
            raise AnsibleLookupError(f"Nothing was started. {text[0].upper()}{text[1:]}")
        return terms
