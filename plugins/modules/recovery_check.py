#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_check
short_description: Check what a drill has brought up
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Runs one check of a copy on the DR host. A filesystem by its checker, expected files, a GT.M or YottaDB database,
    a PostgreSQL cluster, or a command of the site's own.
  - A check that does not pass never makes the module fail; RV(check) says so. Only wrong options do.
  - A check is bounded in time. It runs in a process of its own, as root with mounts, shared memory, processes and, but
    for commands, a network of its own, and whatever it has started is ended with it.
  - What is in a copy is hostile. Programs that read it (all but those of V(command)) run as O(user), without
    capabilities and with no way to get any. No name or setting of the copy reaches them, no link leads out of the
    copy, and what is told of the copy is plain text.
  - Checks may write to what they check. Databases are opened, and logs replayed, so devices and mounts ought to be
    overlays. What is mounted read-only is copied to O(scratch) where a check has to write.
extends_documentation_fragment:
  - openisb.backup.attributes
attributes:
  check_mode:
    description: Looks at the options, and runs no check; RV(check) then says that it did not pass.
    support: full
  diff_mode:
    description: Tells of a state and changes none, so there is no difference to return.
    support: N/A
options:
  check:
    description:
      - What to check. C(name) is V(filesystem), V(files), V(gtm), V(postgresql) or V(command), and the check's own
        options stand beside it; see the collection's C(docs/idr.md).
      - Passwords do not belong here, as all that a check does goes on record.
      - All know C(timeout), in seconds, and C(what), the words by which reports call the check.
      - Paths are production's, and are found here by O(mounts), unless the documentation of a check says otherwise.
    type: dict
    required: true
  mounts:
    description: Where production mounts a volume, and where it is mounted here.
    type: dict
    default: {}
  devices:
    description: The device of each volume here, for the check V(filesystem).
    type: dict
    default: {}
  context:
    description: What the check V(command) is told as JSON on its input, such as the mounts of all servers.
    type: dict
    default: {}
  user:
    description:
      - The user of this host as whom programs read the copy; never root. A check's own C(user) goes before it.
      - Where it is left out, it is user 65530, to whom nothing on a host belongs.
    type: str
    default: ""
  disposable:
    description:
      - Whether what is mounted goes with the drill, so that a check may set links in it right and, on kernels before
        5.12, change the owner of what it works on.
      - Otherwise such kernels have it work on a copy in O(scratch).
    type: bool
    default: false
  unconfined:
    description:
      - Whether programs may read the copy where this host does not allow to shut them off, such as in a container
        without namespaces. A hostile copy can then do there what O(user) can, or, with V(filesystem), what root can.
      - Otherwise such a check does not pass.
    type: bool
    default: false
  scratch:
    description:
      - Folder for what checks write. It must have room for a copy of a database that is mounted read-only.
      - A PostgreSQL server puts its socket there, so its user must be able to pass through the folders above.
    type: path
    default: /var/tmp
"""

EXAMPLES = r"""
- name: Check a filesystem before it is mounted
  openisb.backup.recovery_check:
    check: {name: filesystem, volume: fs1/m, type: ext4}
    devices: {fs1/m: /dev/loop3}
  register: filesystem

- name: Expect files
  openisb.backup.recovery_check:
    check:
      name: files
      paths:
        - /srv/files/**/*.pdf
        - {path: /srv/files/index, min_size: 4096, newer_than: "2026-11-22T00:00:00Z"}
    mounts: {/srv/files: /run/openisb/mnt/fs1-files}

- name: Check the database
  openisb.backup.recovery_check:
    check:
      name: gtm
      gtm_dist: /usr/lib/x86_64-linux-gnu/fis-gtm/V7.0-005_x86_64
      gbldir: /srv/m/mumps.gld
    mounts: {/srv/m: /run/openisb/mnt/fs1-m}

- name: Have the site's own command look at all servers
  openisb.backup.recovery_check:
    check: {name: command, argv: [/usr/local/bin/agree, --strict], timeout: 120}
    context: "{{ idr_context }}"
"""

RETURN = r"""
check:
  description: What came of the check.
  returned: success
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
        - The last 8000 characters of what its commands have printed, each after a line that shows it.
        - Control characters, but for ends of lines and tabs, are written out as in all texts of the result.
      type: str
    output_sha256:
      description: SHA-256 of all that they have printed, with these lines, in UTF-8, control characters written out.
      type: str
    commands:
      description:
        - The commands that it ran. C(argv), C(rc) (negative for the signal that ended it; null where it did not end by
          itself in time, or is a server), C(seconds).
      type: list
      elements: dict
    files:
      description:
        - The files that check V(files) has found. C(path) (production's), C(size), C(sha256) (empty where it was not
          hashed).
      type: list
      elements: dict
  sample:
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

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.checks import bounded, known
from ansible_collections.openisb.backup.plugins.module_utils.checks.base import Surroundings
from ansible_collections.openisb.backup.plugins.module_utils.checks.places import Places
from ansible_collections.openisb.backup.plugins.module_utils.quiesce.errors import OptionError


def surroundings(module):
    """What the check needs to know of this host. Fails where paths are no paths."""
    for name in ("mounts", "devices"):
        for key, path in module.params[name].items():
            wrong = [each for each in ([key, path] if name == "mounts" else [path]) if not is_path(each)]
            if wrong:
                module.fail_json(msg=f"'{name}' must lead to absolute paths, not {wrong[0]!r}: correct it")
    names = ("devices", "context", "user", "disposable", "unconfined")
    return Surroundings(Places(module.params["mounts"]), **{name: module.params[name] for name in names})


def is_path(value):
    return isinstance(value, str) and value.startswith("/")


def not_run(check):
    """The result of a check that is not run."""
    return {
        "kind": check.name,
        "what": check.what,
        "ok": False,
        "detail": "it was not run, because of check mode",
        "seconds": 0.0,
        "output": "",
        "output_sha256": "",
        "commands": [],
        "files": [],
    }


def main():
    module = AnsibleModule(
        argument_spec={
            "check": {"type": "dict", "required": True},
            "mounts": {"type": "dict", "default": {}},
            "devices": {"type": "dict", "default": {}},
            "context": {"type": "dict", "default": {}},
            "user": {"type": "str", "default": ""},
            "disposable": {"type": "bool", "default": False},
            "unconfined": {"type": "bool", "default": False},
            "scratch": {"type": "path", "default": "/var/tmp"},
        },
        supports_check_mode=True,
    )
    try:
        check = known.build(module.params["check"], surroundings(module))
        result = not_run(check) if module.check_mode else bounded.run(check, module.params["scratch"])
    except OptionError as error:
        module.fail_json(msg=f"The check is described wrongly: {error}")
    except OSError as error:
        module.fail_json(msg=f"Checks cannot be run with {module.params['scratch']} as 'scratch': {error}")
    module.exit_json(changed=False, check=result)


if __name__ == "__main__":
    main()
