#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: block_restore
short_description: Restore a saveset to a device, file or NBD export
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Writes a volume, as it was at a consistency point, to a target that is named explicitly.
  - Every chunk is verified against its identity before it is written. A target that is mounted, in use or too small is
    refused before anything is written. M(openisb.backup.restore_target) runs the same tests in advance, on any host.
extends_documentation_fragment:
  - openisb.backup.attributes
  - openisb.backup.repository
  - openisb.backup.job
  - openisb.backup.target
options:
  volume:
    description: The volume, as C(server/name).
    type: str
    required: true
  run_id:
    description:
      - The run whose saveset is restored. If this and O(saveset) are omitted, the latest saveset of the volume is
        restored.
    type: str
  saveset:
    description: The id of the saveset to restore. Its first digits are enough.
    type: str
  target:
    description:
      - A block device, a file, or the address of a writable NBD export as C(nbd://) or C(nbds://).
      - A device or file is refused for the same reasons as by M(openisb.backup.restore_target), and held until
        everything is written. The content of an export is overwritten; its host protects it, with
        O(openisb.backup.nbd_export#module:target).
    type: str
    required: true
  purpose:
    description:
      - What to record as the purpose of a device or file. V(standby) follows the volume; V(restored) stays as it is;
        with V(once), nothing is recorded.
      - A standby that is known to hold another saveset gets only what differs, as with O(base), unless O(reread) is
        set.
    type: str
    choices: [standby, restored, once]
    default: restored
  reread:
    description: Whether to compare a standby with the saveset anyway, whatever is on record about it.
    type: bool
    default: false
  only_changed:
    description:
      - Read what the target holds first, and write only the chunks that differ.
      - For reverting a volume, keeping a standby up to date, and resuming an interrupted restore.
    type: bool
    default: false
  base:
    description:
      - The id of the saveset that the target is known to hold, from M(openisb.backup.standby). Then only what differs
        between the two savesets is written, and only a sample of the target is read.
      - If the sample shows different content, that saveset is no longer in the repository, or the volume had another
        size, the option is ignored, and RV(base.reason) says why.
    type: str
  check:
    description:
      - Read everything back from the target once it is written, and compare it.
      - The page cache is bypassed or dropped first. For an NBD export, the comparison uses what its server reads.
    type: bool
    default: false
  psk:
    description: The key of an NBD export with TLS.
    type: str
  host:
    description:
      - The name or address of the host that must serve O(target) as an NBD export. This keeps another host from
        supplying a path, or an export of a third host. Set it whenever the address comes from another host.
    type: str
  workers:
    description: How many threads read, decrypt and verify. By default, chosen from the number of processors.
    type: int
seealso:
  - module: openisb.backup.job_info
"""

EXAMPLES = r"""
- name: Restore a volume to a file
  openisb.backup.block_restore:
    repository: /var/lib/openisb/repository
    volume: fs1/m
    target: /srv/dr/fs1-m.img
    job: restore.fs1.m

- name: Update a standby device to the latest saveset, and read it back
  openisb.backup.block_restore:
    repository: /var/lib/openisb/repository
    volume: fs1/m
    target: /dev/disk/by-id/wwn-0x600140500000000000000000000000a1
    only_changed: true
    check: true
    job: standby.fs1.m
"""

RETURN = r"""
saveset:
  description: The saveset that was restored.
  returned: success
  type: dict
base:
  description: The saveset that the target held, if only what differs from it was written.
  returned: success
  type: dict
  contains:
    saveset:
      description: Its id; empty if there was none.
      type: str
      returned: always
    reason:
      description: Why the given saveset could not be used; empty if it was used or none was given.
      type: str
      returned: always
stats:
  description:
    - What was done, in bytes and seconds. C(bytes_written), C(bytes_zeroed) and C(bytes_kept) add up to C(bytes_size).
    - C(bytes_compared) were read from the target before writing, C(bytes_checked) after; C(bytes_stored) were read from
      packs.
  returned: success
  type: dict
"""

import contextlib

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.addresses import require_host, with_nbd_key
from ansible_collections.openisb.backup.plugins.module_utils.backup.facts import saveset_facts
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries, running_job
from ansible_collections.openisb.backup.plugins.module_utils.backup.repository import (
    REPOSITORY_ARGUMENTS,
    open_repository,
)
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential, jobs
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import RUNNING, WAITING
from ansible_collections.openisb.backup.plugins.module_utils.luns.standbys import STANDBY
from ansible_collections.openisb.backup.plugins.module_utils.luns.targets import ARGUMENTS as TARGET_ARGUMENTS
from ansible_collections.openisb.backup.plugins.module_utils.luns.targets import PURPOSES, Target
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import NotFound
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io import blocks
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.source import is_nbd
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.target import open_target

ARGUMENTS = dict(
    REPOSITORY_ARGUMENTS,
    **jobs.ARGUMENTS,
    volume={"type": "str", "required": True},
    run_id={"type": "str"},
    saveset={"type": "str"},
    target={"type": "str", "required": True},
    only_changed={"type": "bool", "default": False},
    base={"type": "str"},
    purpose={"type": "str", "choices": list(PURPOSES), "default": "restored"},
    reread={"type": "bool", "default": False},
    **TARGET_ARGUMENTS,
    check={"type": "bool", "default": False},
    psk=confidential.option("psk"),
    host={"type": "str"},
    workers={"type": "int"},
)


def find_base(repository, saveset, target, name):
    """The saveset that the target holds, None if that is not certain; and why."""
    if not name:
        return None, ""
    try:
        base = repository.find(saveset.info.volume, saveset_id=name)
        if base.map.geometry != saveset.map.geometry:
            return None, "the volume had another size"
        if not base.is_on(target):
            return None, f"a sample shows that the target no longer holds saveset {name}"
    except NotFound:
        return None, f"saveset {name}, which the target held, is no longer in the repository"
    return base, ""


def restore(module, job):
    """Write the target; return the module's result."""
    params = module.params
    repository = open_repository(module)
    repository.require_reading()
    saveset = repository.find(params["volume"], saveset_id=params["saveset"], run_id=params["run_id"])
    facts = saveset_facts(saveset.info)
    if module.check_mode:
        return {"saveset": facts, "base": {"saveset": "", "reason": ""}, "stats": {}}
    with opened_target(params, saveset.info) as (target, held):
        job.tell(RUNNING)
        base, reason = find_base(repository, saveset, target, held["saveset"])
        stats = saveset.restore(
            target,
            only_changed=params["only_changed"],
            base=base,
            check=params["check"],
            workers=params["workers"],
            progress=lambda now: job.tell_progress(now.bytes_done, now.bytes_total, now.elapsed_s),
        )
    used = {"saveset": base.info.id if base else "", "reason": reason or held["reason"]}
    return {"saveset": facts, "base": used, "stats": stats.as_dict()}


@contextlib.contextmanager
def opened_target(params, info):
    """The open target, and what it is known to hold: a dict of saveset and reason."""
    if not is_nbd(params["target"]):
        with own_target(params, info) as opened:
            yield opened
        return
    with with_nbd_key(params["target"], params["psk"]) as address, open_target(address, info.size) as target:
        yield target, {"saveset": params["base"] or "", "reason": ""}


@contextlib.contextmanager
def own_target(params, info):
    """As opened_target(), on this host: what was written is recorded before the target is released."""
    options = {key: params[key] for key in ("overwrite", "state_dir", "run_dir")}
    options["block_size"] = blocks.told(info.metadata, "block_size")
    taken, purpose = Target(params["target"], info.volume, info.size, **options), params["purpose"]
    with taken.take() as held:
        before = taken.begin(held, purpose, params["only_changed"])
        saveset = None
        with open_target(params["target"], info.size, held=held) as target:
            try:
                yield target, known_before(params, before)
                saveset = (info.run_id, info.id)
            finally:
                taken.end(purpose, saveset)


def known_before(params, before):
    """What a target of this host is known to hold, as far as the options let that be relied on."""
    if params["base"] or params["purpose"] != STANDBY or params["reread"]:
        return {"saveset": params["base"] or "", "reason": ""}
    return before


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module)
    require_host(module, "target")
    with running_job(module, "Restore of volume {}".format(module.params["volume"]), WAITING) as job:
        result = restore(module, job)
    after = {"target": module.params["target"], "content": result["saveset"]["id"]}
    stats = result["stats"]
    changed = module.check_mode or stats["bytes_written"] + stats["bytes_zeroed"] > 0
    module.exit_json(changed=changed, diff={"before": {"target": module.params["target"]}, "after": after}, **result)


if __name__ == "__main__":
    main()
