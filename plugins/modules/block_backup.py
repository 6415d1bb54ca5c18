#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: block_backup
short_description: Write the volumes of a server block by block to savesets
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads block devices, files or NBD exports and writes the chunks that the repository does not have yet, compressed,
    encrypted and checksummed. A saveset is written as a whole or not at all.
  - All volumes are backed up at once, as one job. Each is committed as soon as it is done. One that fails does not stop
    the others. The task then fails, and still returns the savesets of the others.
  - Waits for one of this host's O(slots), so that the backups of many servers can be started at once.
  - Idempotent. If the repository already has a saveset of a volume of this run and consistency point, nothing of it is
    read and that saveset is returned.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
  - openisb.backup.job
options:
  volumes:
    description: The volumes to back up.
    type: list
    elements: dict
    required: true
    suboptions:
      volume:
        description: The volume, as C(server/name).
        type: str
        required: true
      source:
        description: A block device, a file, or the address of an NBD export as C(nbd://) or C(nbds://).
        type: str
        required: true
      host:
        description:
          - The name or address of the host that must serve C(source) as an NBD export. This keeps another host from
            supplying a path, or an export of a third host. Set it whenever the address comes from another host.
        type: str
      problem:
        description:
          - Why the volume has no source, if it has none. It is then reported as failed with this text, and the others
            are backed up.
        type: str
        default: ''
      metadata:
        description: Additional metadata to keep with the saveset, such as the LUN's serial and filesystem.
        type: dict
        default: {}
      changes:
        description:
          - What the storage reports as changed on the LUN, as M(openisb.backup.lun_map) returns it.
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
  psks:
    description: The keys of NBD exports with TLS, by the volume that each is for.
    type: dict
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
    description:
      - How many threads read, compress and encrypt, for all volumes together. By default, chosen from the number of
        processors.
    type: int
  rate_limit:
    description:
      - Maximum rate at which to read from all sources together, in megabytes (10^6 bytes) per second. V(0) means no
        limit.
    type: float
    default: 0.0
  read_latency:
    description:
      - How many milliseconds a read of up to 1 MiB from a source may take. V(0) means no limit.
      - While reads from a source take longer, the backup pauses before each read from it, for up to 2 seconds.
      - The saveset's C(stats) report how many reads were slow (C(slow_reads)), and for how many seconds reading was
        paused because of them (C(seconds_paused)).
    type: float
    default: 0.0
  cache_dir:
    description:
      - Folder of this host for the index of the repository's chunks, which a backup would otherwise have to make from
        the whole repository each time. It takes about 270 MiB of disk space per TiB of stored chunks, twice that while
        it is updated, and leaves 1 GiB of the disk free. It may be deleted at any time.
      - Where the folder cannot be used, the backup warns and keeps the index in memory.
      - By default, the folder C(openisb) in E(XDG_CACHE_HOME), in C(/var/cache) for root, or in C(~/.cache).
    type: path
  slots:
    description: How many jobs of this module may run at once on this host. V(0) means no limit.
    type: int
    default: 2
seealso:
  - module: openisb.backup.job_info
"""

EXAMPLES = r"""
- name: Back up the volumes of a server
  openisb.backup.block_backup:
    repository: /var/lib/openisb/repository
    volumes:
      - volume: fs1/m
        source: /dev/mapper/snapshot_of_fs1_m
        metadata:
          serial: 600a098038303053453f463045727a6b
      - volume: fs1/data
        source: nbds://openisb@storage1:40001/fs1.data
        host: storage1
    psks:
      fs1/data: "{{ export.psk }}"
    run_id: isb-20261123T021500Z-4f1c2a
    consistency_point: "2026-11-23T02:15:03.250000+00:00"
    verdict: application-consistent
    job: isb-20261123T021500Z-4f1c2a.fs1
"""

RETURN = r"""
savesets:
  description:
    - The savesets of the volumes that have one, in the order of O(volumes), each with id, volume, server, run_id,
      sequence, time, verdict, size (bytes), digest, stats, metadata and origin.
    - C(origin) says how it was read. With C(method) V(changed), only the extents that have changed since the source
      C(since) were read; with V(full), everything was, and C(reason) says why.
    - Also returned if some volumes failed.
  returned: when the volumes were backed up, even if not all
  type: list
  elements: dict
problems:
  description: The volumes that have no saveset, in the order of O(volumes). The task fails if there are any.
  returned: when the volumes were backed up, even if not all
  type: list
  elements: dict
  contains:
    volume:
      description: The volume.
      type: str
      returned: always
    msg:
      description: Why it has no saveset.
      type: str
      returned: always
"""

import contextlib
import datetime
import os
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.addresses import check_export, with_nbd_key
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries, running_job
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)
from ansible_collections.openisb.backup.plugins.module_utils.backup.slots import slot
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential, jobs
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import RUNNING, WAITING
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.changes import Changes
from ansible_collections.openisb.backup.plugins.module_utils.saveset.backup.request import LATEST, BackupRequest
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import NotFound, SavesetError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.progress import FAILED
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.volume import check_distinct
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

VOLUME = {
    "volume": {"type": "str", "required": True},
    "source": {"type": "str", "required": True},
    "host": {"type": "str"},
    "problem": {"type": "str", "default": ""},
    "metadata": {"type": "dict", "default": {}},
    "changes": {"type": "dict", "default": {}, "options": CHANGES, "apply_defaults": True},
    "parent": {"type": "str"},
}

ARGUMENTS = dict(
    REPOSITORY_ARGUMENTS,
    **jobs.ARGUMENTS,
    volumes={"type": "list", "elements": "dict", "options": VOLUME, "required": True},
    psks=confidential.option("psks", kind="dict"),
    run_id={"type": "str", "required": True},
    consistency_point={"type": "str", "required": True},
    verdict={"type": "str", "choices": ["application-consistent", "crash-consistent"], "required": True},
    clock_limit={"type": "float", "default": 60.0},
    paranoid={"type": "bool", "default": False},
    level={"type": "int", "default": 1},
    workers={"type": "int"},
    rate_limit={"type": "float", "default": 0.0},
    read_latency={"type": "float", "default": 0.0},
    cache_dir={"type": "path"},
    slots={"type": "int", "default": 2},
)


class Volume:
    """One volume of the task, with its options validated."""

    def __init__(self, options, psk):
        """Raise ValueError for options that cannot be right."""
        self.id = options["volume"]
        self.options = options
        self.psk = str(psk) if psk else None
        if not options["problem"]:
            check_export("source", options["source"], options["host"], self.psk)
        self.changes = changes_told(options["changes"])


def changes_told(told):
    """What has changed since the base, or None if the storage did not report it. Raises ValueError."""
    if not told["since"]:
        return None
    try:
        return Changes(since=told["since"], size=told["size"], extents=unpack(told["extents"]))
    except ValueError as error:
        raise ValueError(f"changes: {error}") from error


def parse_volumes(module):
    """The volumes of the task; fails on the first that cannot be right, before anything is read."""
    options, psks = module.params["volumes"], module.params["psks"] or {}
    ids = [each["volume"] for each in options]
    if not ids:
        module.fail_json(msg="volumes: there is none: name at least one volume")
    try:
        check_distinct(ids)
    except SavesetError as error:
        module.fail_json(msg=f"volumes: {error}")
    unknown = sorted(set(psks) - set(ids))
    if unknown:
        module.fail_json(msg=f"psks: there is a key of {unknown[0]!r}, which is none of the volumes: correct its name")
    volumes = []
    for each in options:
        try:
            volumes.append(Volume(each, psks.get(each["volume"])))
        except ValueError as error:
            module.fail_json(msg=f"volume {each['volume']}: {error}")
    return volumes


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


def existing(repository, params, volume, moment):
    """The saveset of this volume, run and consistency point, if an earlier attempt already wrote it."""
    wanted = params["run_id"], moment
    return next((info for info in repository.savesets(volume.id) if (info.run_id, info.time) == wanted), None)


def parent_of(repository, volume):
    """The saveset to build upon: the one named, None if it does not exist, or the latest."""
    parent = volume.options["parent"]
    if parent is None:
        return LATEST
    try:
        return repository.find(volume.id, saveset_id=parent).info if parent else None
    except NotFound:
        return None


def facts_of(saveset, told):
    """The saveset as the module returns it, with the storage's own reason for reporting no changes."""
    facts = saveset_facts(saveset.info)
    if not told["since"]:
        facts["origin"] = dict(facts["origin"], reason=told["reason"])
    return facts


def requested(repository, params, volume, moment):
    """What the engine is asked to do with a volume."""
    return BackupRequest(
        volume=volume.id,
        run_id=params["run_id"],
        time=moment,
        verdict=params["verdict"],
        metadata=volume.options["metadata"],
        parent=parent_of(repository, volume),
        source_id=volume.options["changes"]["id"],
        changes=volume.changes,
        paranoid=params["paranoid"],
        level=params["level"],
        workers=params["workers"],
        rate_limit=int(params["rate_limit"] * 1e6) or None,
        read_latency=params["read_latency"] / 1000 or None,
        cache_dir=params["cache_dir"],
        clock_limit=datetime.timedelta(seconds=params["clock_limit"]),
    )


def back_up(module, job, volumes, moment):
    """Write the savesets; return the module's result."""
    params = module.params
    # Before the repository is opened, which takes memory and processor time: a hundred may wait here.
    count = 0 if module.check_mode else params["slots"]
    with slot(os.path.join(params["run_dir"], "slots"), count, lambda: job.tell(WAITING)):
        repository = open_repository(module)
        found = {volume.id: existing(repository, params, volume, moment) for volume in volumes}
        missing = [volume for volume in volumes if not found[volume.id]]
        problems = {volume.id: volume.options["problem"] for volume in missing if volume.options["problem"]}
        left = [volume for volume in missing if volume.id not in problems]
        facts = {name: saveset_facts(info) for name, info in found.items() if info}
        if left and not module.check_mode:
            written, failed = read_sources(repository, params, left, moment, job)
            facts.update(written)
            problems.update(failed)
    return {
        "changed": bool(left) if module.check_mode else any(volume.id in facts for volume in left),
        "savesets": [facts[volume.id] for volume in volumes if volume.id in facts],
        "problems": [{"volume": volume.id, "msg": problems[volume.id]} for volume in volumes if volume.id in problems],
    }


def read_sources(repository, params, volumes, moment, job):
    """Back up the volumes; return the savesets as facts, and why there is none of the others, both by volume."""
    opened, pairs, problems = [], [], {}
    with contextlib.ExitStack() as stack:
        for volume in volumes:
            try:
                address = stack.enter_context(with_nbd_key(volume.options["source"], volume.psk))
                source = stack.enter_context(contextlib.closing(open_source(address)))
                pairs.append((source, requested(repository, params, volume, moment)))
                opened.append(volume)
            except (SavesetError, OSError) as error:
                problems[volume.id] = str(error)
        job.tell(RUNNING)
        begun = time.monotonic()
        outcomes = repository.backup_all(pairs, lambda parts: tell_progress(job, parts, time.monotonic() - begun))
    written = {}
    for volume, outcome in zip(opened, outcomes, strict=True):
        if isinstance(outcome, Exception):
            problems[volume.id] = str(outcome)
        else:
            written[volume.id] = facts_of(outcome, volume.options["changes"])
    return written, problems


def tell_progress(job, parts, elapsed):
    """Record how far the job is as a whole, without the volumes that failed, and how far each volume is."""
    going = [part.progress for part in parts if part.state != FAILED]
    job.tell_progress(
        sum(progress.bytes_done for progress in going),
        sum(progress.bytes_total for progress in going),
        elapsed,
        [part_of(part) for part in parts],
    )


def part_of(part):
    """A volume as a part of the job's progress."""
    now = part.progress
    label = part.volume.partition("/")[2] or part.volume
    return dict(jobs.progress_of(now.bytes_done, now.bytes_total, now.elapsed_s), label=label, state=part.state)


def named(volumes):
    """The volumes, for messages."""
    return "volume{} {}".format("s" if len(volumes) > 1 else "", ", ".join(volume.id for volume in volumes))


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module)
    check_pace(module)
    moment, volumes = parse_time(module), parse_volumes(module)
    with running_job(module, f"Backup of {named(volumes)}", WAITING) as job:
        result = back_up(module, job, volumes, moment)
    result["diff"] = {"before": {}, "after": {"savesets": result["savesets"]}}
    if result["problems"]:
        causes = ["Backup of volume {volume}: {msg}".format(**problem) for problem in result["problems"]]
        module.fail_json(msg="; ".join(causes), **result)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
