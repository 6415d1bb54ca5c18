#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: block_backup
short_description: Write a volume block by block to a saveset
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads a block device, file or NBD export and writes what the repository does not have yet, compressed, encrypted and
    checksummed. The saveset is there whole or not at all.
  - Waits for one of O(slots) free slots of this host, so that many servers can be started at once.
  - Meant to run detached (C(async)); M(openisb.backup.job_info) tells how far it is.
  - Where the repository has a saveset of this volume and run already, nothing is read and that saveset is returned.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
  - openisb.backup.job
options:
  volume:
    description: The volume, as C(server/name).
    type: str
    required: true
  source:
    description: A block device, a file, or the address of an NBD export as C(nbd://) or C(nbds://).
    type: str
    required: true
  psk:
    description: The key of an NBD export with TLS.
    type: str
  host:
    description:
      - The name or address of the host that O(source) must be an NBD export of, so that no other host can name a path,
        or an export of a third one. Set it wherever the address comes from another host.
    type: str
  run_id:
    description: The run that the saveset belongs to.
    type: str
    required: true
  consistency_point:
    description: The moment that the copy shows, as ISO 8601 with a time zone.
    type: str
    required: true
  verdict:
    description: What the run's consistency point was found to be.
    type: str
    choices: [application-consistent, crash-consistent]
    required: true
  metadata:
    description: What else to keep with the saveset, such as the LUN's serial and filesystem.
    type: dict
    default: {}
  changes:
    description:
      - What the storage tells of the LUN, as M(openisb.backup.lun_changes) returns it. Only what has changed is read,
        if it is told since the very snapshot that the last saveset of the volume was made of; else all is read, and the
        saveset's C(origin) says why.
    type: dict
    default: {}
    suboptions:
      id:
        description: What names the content of the source for good. Empty where nothing does.
        type: str
        default: ''
      since:
        description: The C(id) of the base since which changes are told. Empty where none are told.
        type: str
        default: ''
      reason:
        description: Why no changes are told.
        type: str
        default: ''
      size:
        description: Size of source and base in bytes.
        type: int
        default: 0
      extents:
        description: The changed extents, packed.
        type: str
        default: ''
      count:
        description: How many they are.
        type: int
      bytes:
        description: How many bytes they cover.
        type: int
  parent:
    description:
      - The id of the saveset of this volume that it builds upon; none where it is empty or not there.
      - The latest one that fits into the order of the volume's savesets where it is left out.
    type: str
  clock_limit:
    description: How many seconds O(consistency_point) may be ahead of this host's clock.
    type: float
    default: 60.0
  paranoid:
    description: Whether all is read even so, and compared, to prove that what the storage tells is right.
    type: bool
    default: false
  level:
    description: Compression level of zstd.
    type: int
    default: 1
  workers:
    description: How many threads read, compress and encrypt. Chosen by the number of processors where left out.
    type: int
  rate_limit:
    description: Most megabytes (10^6) a second to read from the source. No limit where it is 0.
    type: float
    default: 0.0
  read_latency:
    description:
      - Most milliseconds that a read of up to 1 MiB from the source may take. No bound where it is 0.
      - While reads take longer, the backup pauses before each of them, for up to 2 seconds.
      - The saveset's C(stats) tell how many reads were slow (C(slow_reads)), and for how many seconds reading was held
        back because of them (C(seconds_paused)).
    type: float
    default: 0.0
  slots:
    description: How many backups may run at once on this host. No limit where it is 0.
    type: int
    default: 2
seealso:
  - module: openisb.backup.job_info
"""

EXAMPLES = r"""
- name: Back up a volume
  openisb.backup.block_backup:
    repository: /var/lib/openisb/repository
    volume: fs1/m
    source: /dev/mapper/snapshot_of_fs1
    run_id: isb-20261123T021500Z-4f1c2a
    consistency_point: "2026-11-23T02:15:03.250000+00:00"
    verdict: application-consistent
    job: isb-20261123T021500Z-4f1c2a.fs1.m
  async: 86400
  poll: 0
"""

RETURN = r"""
saveset:
  description:
    - The saveset, with id, volume, server, run_id, sequence, time, verdict, size (bytes), digest, stats, metadata and
      origin.
    - C(origin) tells how it was read; with C(method) V(changed), changed extents since the source C(since); with
      V(full), all of it, for a C(reason).
  returned: success
  type: dict
"""

import contextlib
import datetime
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils import confidential
from ansible_collections.openisb.backup.plugins.module_utils.jobs import RUNNING, WAITING
from ansible_collections.openisb.backup.plugins.module_utils.lun_changes import unpack
from ansible_collections.openisb.backup.plugins.module_utils.saveset.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.errors import NotFound
from ansible_collections.openisb.backup.plugins.module_utils.saveset.repository import LATEST
from ansible_collections.openisb.backup.plugins.module_utils.saveset.source import open_source
from ansible_collections.openisb.backup.plugins.module_utils.saveset_module import (
    JOB_ARGUMENTS,
    REPOSITORY_ARGUMENTS,
    open_repository,
    require_host,
    require_libraries,
    running_job,
    saveset_facts,
    with_nbd_key,
)
from ansible_collections.openisb.backup.plugins.module_utils.slots import slot

CHANGES = {
    "id": {"type": "str", "default": ""},
    "since": {"type": "str", "default": ""},
    "reason": {"type": "str", "default": ""},
    "size": {"type": "int", "default": 0},
    "extents": {"type": "str", "default": ""},
    "count": {"type": "int"},
    "bytes": {"type": "int"},
}

ARGUMENTS = dict(
    REPOSITORY_ARGUMENTS,
    **JOB_ARGUMENTS,
    volume={"type": "str", "required": True},
    source={"type": "str", "required": True},
    psk=confidential.option("psk"),
    host={"type": "str"},
    run_id={"type": "str", "required": True},
    consistency_point={"type": "str", "required": True},
    verdict={"type": "str", "choices": ["application-consistent", "crash-consistent"], "required": True},
    metadata={"type": "dict", "default": {}},
    changes={"type": "dict", "default": {}, "options": CHANGES, "apply_defaults": True},
    parent={"type": "str"},
    clock_limit={"type": "float", "default": 60.0},
    paranoid={"type": "bool", "default": False},
    level={"type": "int", "default": 1},
    workers={"type": "int"},
    rate_limit={"type": "float", "default": 0.0},
    read_latency={"type": "float", "default": 0.0},
    slots={"type": "int", "default": 2},
)


def parse_time(module):
    """The consistency point, as a datetime with a time zone."""
    text = module.params["consistency_point"]
    try:
        moment = datetime.datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        module.fail_json(msg=f"consistency_point '{text}' is not ISO 8601 with a time zone")
    return moment


def check_pace(module):
    """Fail for a pace below 0, which the engine would take for a very slow one."""
    for name in ("rate_limit", "read_latency"):
        if module.params[name] < 0:
            module.fail_json(msg=f"{name} {module.params[name]} is less than 0: give 0 for no bound")
    if module.params["clock_limit"] < 0:
        module.fail_json(msg="clock_limit {} is less than 0: give seconds".format(module.params["clock_limit"]))


def changes_told(module):
    """What has changed since the base, or None where the storage did not tell."""
    told = module.params["changes"]
    if not told["since"]:
        return None
    try:
        return Changes(since=told["since"], size=told["size"], extents=unpack(told["extents"]))
    except ValueError as error:
        module.fail_json(msg=f"changes: {error}")


def existing(repository, params, moment):
    """The saveset of this volume, run and consistency point, where an earlier try wrote it already."""
    wanted = params["run_id"], moment
    return next((info for info in repository.savesets(params["volume"]) if (info.run_id, info.time) == wanted), None)


def parent_of(repository, params):
    """The saveset to build upon: the one that was named, None where it is not there, or the latest."""
    if params["parent"] is None:
        return LATEST
    try:
        return repository.find(params["volume"], saveset_id=params["parent"]) if params["parent"] else None
    except NotFound:
        return None


def facts_of(saveset, told):
    """The saveset as the module returns it, with the storage's own reason why it told no changes."""
    facts = saveset_facts(saveset.info)
    if not told["since"]:
        facts["origin"] = dict(facts["origin"], reason=told["reason"])
    return facts


def back_up(module, job, moment, changes):
    """Write the saveset, and return what the module returns."""
    params = module.params
    repository = open_repository(module)
    done = existing(repository, params, moment)
    if done or module.check_mode:
        return {"changed": not done, "saveset": saveset_facts(done) if done else {}}
    with contextlib.ExitStack() as stack:
        slots = os.path.join(params["run_dir"], "slots")
        stack.enter_context(slot(slots, params["slots"], lambda: job.tell(WAITING)))
        address = stack.enter_context(with_nbd_key(params["source"], params["psk"]))
        saveset = read_source(repository, address, params, moment, changes, job)
    return {"changed": True, "saveset": facts_of(saveset, params["changes"])}


def read_source(repository, address, params, moment, changes, job):
    """Back up what is at ``address``, and return the saveset."""
    job.tell(RUNNING)
    with contextlib.closing(open_source(address)) as source:
        return repository.backup(
            source,
            params["volume"],
            run_id=params["run_id"],
            time=moment,
            verdict=params["verdict"],
            parent=parent_of(repository, params),
            clock_limit=datetime.timedelta(seconds=params["clock_limit"]),
            metadata=params["metadata"],
            source_id=params["changes"]["id"],
            changes=changes,
            paranoid=params["paranoid"],
            level=params["level"],
            workers=params["workers"],
            rate_limit=int(params["rate_limit"] * 1e6) or None,
            read_latency=params["read_latency"] / 1000 or None,
            progress=lambda now: job.tell_progress(now.bytes_done, now.bytes_total, now.elapsed_s),
        )


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module)
    require_host(module, "source")
    check_pace(module)
    moment, changes = parse_time(module), changes_told(module)
    with running_job(module, "Backup of volume {}".format(module.params["volume"]), WAITING) as job:
        result = back_up(module, job, moment, changes)
    module.exit_json(diff={"before": {}, "after": result["saveset"]}, **result)


if __name__ == "__main__":
    main()
