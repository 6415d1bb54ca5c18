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
  - Reads a block device, file or NBD export and writes the chunks that the repository does not have yet, compressed,
    encrypted and checksummed. The saveset is written as a whole or not at all.
  - Waits for one of this host's O(slots), so that the backups of many servers can be started at once.
  - Idempotent. If the repository already has a saveset of this volume, run and consistency point, nothing is read and
    that saveset is returned.
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
      - The name or address of the host that must serve O(source) as an NBD export. This keeps another host from
        supplying a path, or an export of a third host. Set it whenever the address comes from another host.
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
    description: The verdict on the run's consistency point.
    type: str
    choices: [application-consistent, crash-consistent]
    required: true
  metadata:
    description: Additional metadata to keep with the saveset, such as the LUN's serial and filesystem.
    type: dict
    default: {}
  changes:
    description:
      - What the storage reports as changed on the LUN, as M(openisb.backup.lun_changes) returns it.
      - Only the changes are read if they are relative to the very snapshot that the volume's last saveset was made
        from. Otherwise everything is read, and the saveset's C(origin) says why.
    type: dict
    default: {}
    suboptions:
      id:
        description: Permanent identity of the source's content. Empty if it has none.
        type: str
        default: ''
      since:
        description: The C(id) of the base that the changes are relative to. Empty if no changes are reported.
        type: str
        default: ''
      reason:
        description: Why no changes are reported.
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
        description: How many extents have changed.
        type: int
      bytes:
        description: How many bytes they cover.
        type: int
  parent:
    description:
      - The id of the saveset of this volume to build upon. If it is empty or there is no such saveset, the new one
        builds upon none.
      - If omitted, the latest saveset that fits into the order of the volume's savesets is used.
    type: str
  clock_limit:
    description: How many seconds O(consistency_point) may be ahead of this host's clock.
    type: float
    default: 60.0
  paranoid:
    description: Whether to read everything anyway and compare it, to prove that what the storage reports is right.
    type: bool
    default: false
  level:
    description: The zstd compression level.
    type: int
    default: 1
  workers:
    description: How many threads read, compress and encrypt. By default, chosen from the number of processors.
    type: int
  rate_limit:
    description:
      - Maximum rate at which to read from the source, in megabytes (10^6 bytes) per second. V(0) means no limit.
    type: float
    default: 0.0
  read_latency:
    description:
      - How many milliseconds a read of up to 1 MiB from the source may take. V(0) means no limit.
      - While reads take longer, the backup pauses before each read, for up to 2 seconds.
      - The saveset's C(stats) report how many reads were slow (C(slow_reads)), and for how many seconds reading was
        paused because of them (C(seconds_paused)).
    type: float
    default: 0.0
  slots:
    description: How many backups may run at once on this host. V(0) means no limit.
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
"""

RETURN = r"""
saveset:
  description:
    - The saveset, with id, volume, server, run_id, sequence, time, verdict, size (bytes), digest, stats, metadata and
      origin.
    - C(origin) says how it was read. With C(method) V(changed), only the extents that have changed since the source
      C(since) were read; with V(full), everything was, and C(reason) says why.
  returned: success
  type: dict
"""

import contextlib
import datetime
import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import (
    REPOSITORY_ARGUMENTS,
    open_repository,
    require_host,
    require_libraries,
    running_job,
    saveset_facts,
    with_nbd_key,
)
from ansible_collections.openisb.backup.plugins.module_utils.backup.slots import slot
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential, jobs
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import RUNNING, WAITING
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import LATEST, BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import NotFound
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.source import open_source
from ansible_collections.openisb.backup.plugins.module_utils.storage.lun_changes import unpack

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
    **jobs.ARGUMENTS,
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
    """Fail on a negative limit, which the engine would treat as a very slow one."""
    for name in ("rate_limit", "read_latency"):
        if module.params[name] < 0:
            module.fail_json(msg=f"{name} {module.params[name]} is less than 0: use 0 for no limit")
    if module.params["clock_limit"] < 0:
        module.fail_json(msg=f"clock_limit {module.params['clock_limit']} is less than 0: set a number of seconds")


def changes_told(module):
    """What has changed since the base, or None if the storage did not report it."""
    told = module.params["changes"]
    if not told["since"]:
        return None
    try:
        return Changes(since=told["since"], size=told["size"], extents=unpack(told["extents"]))
    except ValueError as error:
        module.fail_json(msg=f"changes: {error}")


def existing(repository, params, moment):
    """The saveset of this volume, run and consistency point, if an earlier attempt already wrote it."""
    wanted = params["run_id"], moment
    return next((info for info in repository.savesets(params["volume"]) if (info.run_id, info.time) == wanted), None)


def parent_of(repository, params):
    """The saveset to build upon: the one named, None if it does not exist, or the latest."""
    if params["parent"] is None:
        return LATEST
    try:
        return repository.find(params["volume"], saveset_id=params["parent"]).info if params["parent"] else None
    except NotFound:
        return None


def facts_of(saveset, told):
    """The saveset as the module returns it, with the storage's own reason for reporting no changes."""
    facts = saveset_facts(saveset.info)
    if not told["since"]:
        facts["origin"] = dict(facts["origin"], reason=told["reason"])
    return facts


def back_up(module, job, moment, changes):
    """Write the saveset; return the module's result."""
    params = module.params
    repository = open_repository(module)
    done = existing(repository, params, moment)
    if done or module.check_mode:
        return {"changed": not done, "saveset": saveset_facts(done) if done else {}}
    with contextlib.ExitStack() as stack:
        slots = os.path.join(params["run_dir"], "slots")
        stack.enter_context(slot(slots, params["slots"], lambda: job.tell(WAITING)))
        address = stack.enter_context(with_nbd_key(params["source"], params["psk"]))
        saveset = read_source(repository, address, requested(repository, params, moment, changes), job)
    return {"changed": True, "saveset": facts_of(saveset, params["changes"])}


def requested(repository, params, moment, changes):
    """What the engine is asked to do."""
    return BackupRequest(
        volume=params["volume"],
        run_id=params["run_id"],
        time=moment,
        verdict=params["verdict"],
        metadata=params["metadata"],
        parent=parent_of(repository, params),
        source_id=params["changes"]["id"],
        changes=changes,
        paranoid=params["paranoid"],
        level=params["level"],
        workers=params["workers"],
        rate_limit=int(params["rate_limit"] * 1e6) or None,
        read_latency=params["read_latency"] / 1000 or None,
        clock_limit=datetime.timedelta(seconds=params["clock_limit"]),
    )


def read_source(repository, address, request, job):
    """Back up the source at ``address``; return the saveset."""
    job.tell(RUNNING)
    with contextlib.closing(open_source(address)) as source:
        return repository.backup(
            source, request, lambda now: job.tell_progress(now.bytes_done, now.bytes_total, now.elapsed_s)
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
