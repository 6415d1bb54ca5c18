#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_check
short_description: Run recovery checks of a drill
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Runs checks of a copy on the DR host, one after the other. A check checks a filesystem (with its own checker),
    expected files, a GT.M or YottaDB database or a PostgreSQL cluster, or runs a command of the site's own.
  - A check that does not pass never makes the module fail, and does not keep the next ones from running; RV(checks)
    reports it. Only wrong options make the module fail, before any check is run.
  - A check has a time limit. It runs in a separate process, as root with its own mounts, shared memory, processes and,
    except for commands, network. Everything that it has started is ended with it.
  - The content of a copy is untrusted. Programs that read it (all but those of V(command)) run as O(user), without
    capabilities and with no way to gain any. No name or setting in the copy reaches them, no link leads out of the
    copy, and everything reported of the copy is plain text.
  - Checks may write to what they check. Databases are opened, and logs replayed, so devices and mounts ought to be
    overlays. What is mounted read-only is copied to O(scratch) if a check has to write.
extends_documentation_fragment:
  - openisb.backup.attributes
attributes:
  check_mode:
    description: Validates the options and runs no check; RV(checks) then says that they did not pass.
    support: full
  diff_mode:
    description: Reports a state and changes none, so there is no difference to return.
    support: N/A
options:
  checks:
    description:
      - The checks to run, in this order. C(name) is V(filesystem), V(files), V(gtm), V(postgresql) or V(command), and
        the check's own options stand beside it; see the collection's C(docs/idr.md).
      - Do not put passwords here, because everything that a check does is recorded.
      - All accept C(timeout), in seconds, and C(what), the name of the check in reports.
      - Paths are those of production, and are translated with O(mounts), unless the documentation of a check says
        otherwise.
    type: list
    elements: dict
    required: true
  mounts:
    description: For each mount point of production, where that volume is mounted here.
    type: dict
    default: {}
  devices:
    description: The device of each volume here, for the check V(filesystem).
    type: dict
    default: {}
  context:
    description: What to pass to the check V(command) as JSON on its standard input, such as the mounts of all servers.
    type: dict
    default: {}
  user:
    description:
      - The user of this host that programs run as when they read the copy; never root. A check's own C(user) takes
        precedence.
      - Defaults to user 65530, which owns nothing on a host.
    type: str
    default: ""
  disposable:
    description:
      - Whether what is mounted is discarded after the drill, so that a check may repair links in it and, on kernels
        before 5.12, change the owner of what it works on.
      - Otherwise, on such kernels, the check works on a copy in O(scratch).
    type: bool
    default: false
  unconfined:
    description:
      - Whether programs may read the copy if this host does not allow them to be confined, such as in a container
        without namespaces. A hostile copy can then do whatever O(user) can or, with V(filesystem), whatever root can.
      - Otherwise such a check does not pass.
    type: bool
    default: false
  scratch:
    description:
      - Folder for what checks write. It must have enough disk space for a copy of a database that is mounted read-only.
      - A PostgreSQL server puts its socket there, so its user must be able to traverse the folders above.
    type: path
    default: /var/tmp
"""

EXAMPLES = r"""
- name: Check a filesystem before it is mounted
  openisb.backup.recovery_check:
    checks:
      - {name: filesystem, volume: fs1/m, type: ext4}
    devices: {fs1/m: /dev/loop3}
  register: filesystem

- name: Look for expected files
  openisb.backup.recovery_check:
    checks:
      - name: files
        paths:
          - /srv/files/**/*.pdf
          - {path: /srv/files/index, min_size: 4096, newer_than: "2026-11-22T00:00:00Z"}
    mounts: {/srv/files: /run/openisb/mnt/fs1-files}

- name: Check the database
  openisb.backup.recovery_check:
    checks:
      - name: gtm
        gtm_dist: /usr/lib/x86_64-linux-gnu/fis-gtm/V7.0-005_x86_64
        gbldir: /srv/m/mumps.gld
    mounts: {/srv/m: /run/openisb/mnt/fs1-m}

- name: Have the site's own command look at all servers
  openisb.backup.recovery_check:
    checks:
      - {name: command, argv: [/usr/local/bin/agree, --strict], timeout: 120}
    context: "{{ idr_context }}"
"""

RETURN = r"""
checks:
  description: The result of each check, in the order of O(checks).
  returned: success
  type: list
  elements: dict
  contains:
    ago:
      description: How long before the end of the module it ended, in seconds.
      type: float
    check:
      description: The result.
      type: dict
      contains:
        kind:
          description: The check's C(name).
          type: str
        what:
          description: What was checked, in a few words.
          type: str
        ok:
          description: Whether it passed.
          type: bool
        detail:
          description: What was found, or why it did not pass, in one line.
          type: str
        seconds:
          description: How long it took.
          type: float
        output:
          description:
            - The last 8000 characters that its commands printed, each command after a line that shows it.
            - Control characters except line ends and tabs are escaped, as in all texts of the result.
          type: str
        output_sha256:
          description:
            - SHA-256 of everything that they printed, with these lines, in UTF-8, with control characters escaped.
          type: str
        commands:
          description:
            - The commands that it ran, each with C(argv), C(rc) (negative for the signal that ended it; null if it did
              not end on its own in time, or is a server) and C(seconds).
          type: list
          elements: dict
        files:
          description:
            - The files that check V(files) found, each with C(path) (in production), C(size) and C(sha256) (empty if it
              was not hashed).
          type: list
          elements: dict
  sample:
    - ago: 0.0
      check:
        kind: filesystem
        what: fs1/m ext4
        ok: true
        detail: ext4 is clean
        seconds: 0.31
        output: "$ /usr/sbin/e2fsck -f -n /dev/loop3\n..."
        output_sha256: 9f2c5a8f1c0d4a4f0c9c1d0f2a8b7e6d5c4b3a29180706f5e4d3c2b1a0998877
        commands:
          - argv: [/usr/sbin/e2fsck, -f, -n, /dev/loop3]
            rc: 0
            seconds: 0.12
        files: []
"""

import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.checks import bounded, known
from ansible_collections.openisb.backup.plugins.module_utils.checks.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.checks.places import Places
from ansible_collections.openisb.backup.plugins.module_utils.host.errors import OptionError

ARGUMENTS = {
    "checks": {"type": "list", "elements": "dict", "required": True},
    "mounts": {"type": "dict", "default": {}},
    "devices": {"type": "dict", "default": {}},
    "context": {"type": "dict", "default": {}},
    "user": {"type": "str", "default": ""},
    "disposable": {"type": "bool", "default": False},
    "unconfined": {"type": "bool", "default": False},
    "scratch": {"type": "path", "default": "/var/tmp"},
}


def surroundings(module):
    """What the check needs to know about this host. Fails if a path is not absolute."""
    for name in ("mounts", "devices"):
        for key, path in module.params[name].items():
            wrong = [each for each in ([key, path] if name == "mounts" else [path]) if not is_path(each)]
            if wrong:
                module.fail_json(msg=f"'{name}' must map to absolute paths, not {wrong[0]!r}: correct it")
    names = ("devices", "context", "user", "disposable", "unconfined")
    return Surroundings(Places(module.params["mounts"]), **{name: module.params[name] for name in names})


def is_path(value):
    return isinstance(value, str) and value.startswith("/")


def run(check, scratch):
    """The result of a check, also where it cannot be run on this host: that must not hide the others' results."""
    try:
        return bounded.run(check, scratch)
    except OSError as error:
        return failed(check, f"checks cannot be run with {scratch} as 'scratch': {error}")


def failed(check, detail):
    """The result of a check that has not been run."""
    return {
        "kind": check.name,
        "what": check.what,
        "ok": False,
        "detail": detail,
        "seconds": 0.0,
        "output": "",
        "output_sha256": "",
        "commands": [],
        "files": [],
    }


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    around = surroundings(module)
    try:
        checks = [known.build(description, around) for description in module.params["checks"]]
    except OptionError as error:
        module.fail_json(msg=f"The options of the checks are wrong: {error}")
    results, ends = [], []
    for check in checks:
        not_run = "it was not run, because of check mode"
        results.append(failed(check, not_run) if module.check_mode else run(check, module.params["scratch"]))
        ends.append(time.monotonic())
    now = time.monotonic()
    told = [{"check": result, "ago": round(now - end, 3)} for result, end in zip(results, ends)]
    module.exit_json(changed=False, checks=told)


if __name__ == "__main__":
    main()
