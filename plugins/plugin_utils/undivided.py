# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a playbook runs as a whole, or something leaves out a part of it.

Ansible skips a play whose hosts a limit excludes, and tasks that tags or a start task exclude, and still ends
successfully. What is skipped may be the thaw, or everything.
"""

from __future__ import annotations

EVERYTHING = "all"
TAGS = ("always", "teardown")
"""The tags of this collection's tasks; other names in ``skip_tags`` leave out nothing."""

MEANT = (EVERYTHING, "tagged", "untagged", *TAGS)
LISTINGS = ("listhosts", "listtasks", "listtags", "syntax")


def problems(options, variables, hosts, tags=(), instead=""):
    """What keeps a playbook from running as a whole: one text per problem, with its remedy.

    ``options``: those of the command line; ``hosts``: names of groups and hosts that it needs; ``tags``: those with
    which a part of the playbook may be run; ``instead``: the alternative to a limit.
    """
    if any(options.get(listing) for listing in LISTINGS):
        return []
    return [
        *limit_problems(options.get("subset"), instead),
        *tag_problems(options.get("tags") or (), options.get("skip_tags") or (), tags),
        *step_problems(options),
        *slice_problems(variables),
        *host_problems(variables.get("groups") or {}, hosts),
    ]


def limit_problems(limit, instead):
    """A limit also leaves out hosts that others need, and the controller's own plays."""
    if not limit:
        return []
    way_out = f", and {instead}" if instead else ""
    text = (
        f"the limit '{limit}' would leave out hosts that take part in this: give no --limit{way_out} (in AWX leave "
        "the limit empty, and relaunch a job on all hosts, not on the failed ones)"
    )
    return [text]


def tag_problems(tags, skip_tags, allowed):
    """Tags that only the playbook has leave out the tasks of its roles."""
    found = []
    if EVERYTHING not in tags and not set(tags) <= set(allowed):
        other = f", or --tags {' or '.join(allowed)} alone" if allowed else ""
        found.append(f"the tags '{','.join(tags)}' would leave out tasks that take part in this: give no --tags{other}")
    skipped = [tag for tag in skip_tags if tag in MEANT]
    if skipped:
        found.append(
            f"skipping the tags '{','.join(skipped)}' would leave out tasks that take part in this: give no --skip-tags"
        )
    return found


def step_problems(options):
    """Each task depends on those before it."""
    start = options.get("start_at_task")
    found = []
    if start:
        found.append(f"starting at the task '{start}' would leave out those before it: give no --start-at-task")
    if options.get("step"):
        found.append("with --step, tasks could be left out: give no --step")
    return found


def slice_problems(variables):
    """AWX starts the slices of a job as a workflow with the template's own name, and gives each only some hosts."""
    name = variables.get("awx_workflow_job_name")
    if not name or name != variables.get("awx_job_template_name"):
        return []
    text = (
        f"the workflow and the job template have the same name, '{name}', like the slices of a job, each of which has "
        "only some of the hosts: set the template's job slicing to 1, or give your own workflow another name"
    )
    return [text]


def host_problems(groups, hosts):
    """Ansible skips a play for a group without hosts."""
    known = {"localhost", *groups.get("all", ()), *(group for group, members in groups.items() if members)}
    return [
        f"the inventory has no host in the group {name}: add one, or correct the name of the group (docs/inventory.md "
        "has an example)"
        for name in dict.fromkeys(host.partition("[")[0] for host in hosts)
        if name not in known
    ]
