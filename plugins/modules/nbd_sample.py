#!/usr/bin/python
# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: nbd_sample
short_description: Read the sample that an export serves
version_added: 0.1.0
author: OpenISB contributors (@openisb)
description:
  - Reads all of an export that M(openisb.backup.nbd_export) has started with C(sample), in the same way as
    M(openisb.backup.block_backup) reads a LUN, and compares it with what it must be.
  - A job, as a backup is, so that whatever would keep a backup from its source is found before anything depends on it.
extends_documentation_fragment:
  - openisb.backup.attributes.info
  - openisb.backup.job
options:
  source:
    description: The address of the export, as C(nbd://) or C(nbds://).
    type: str
    required: true
  psk:
    description: The key of an export with TLS.
    type: str
  host:
    description: The name or address of the host that O(source) must be an export of.
    type: str
    required: true
  connect_timeout:
    description: Seconds within which the host must accept the connection.
    type: float
    default: 10.0
seealso:
  - module: openisb.backup.nbd_export
  - module: openisb.backup.job_info
"""

EXAMPLES = r"""
- name: Read a sample from the storage host
  openisb.backup.nbd_sample:
    source: nbds://openisb@storage1:40001/isb-20261123T021500Z-4f1c2a.sample
    psk: "{{ export.psk }}"
    host: storage1
    job: isb-20261123T021500Z-4f1c2a.sample
    timeout: 60
"""

RETURN = r"""
bytes:
  description: How many bytes were read and found to be correct.
  returned: success
  type: int
"""

import contextlib
import socket

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.openisb.backup.plugins.module_utils.backup.addresses import require_host, with_nbd_key
from ansible_collections.openisb.backup.plugins.module_utils.backup.module import require_libraries, running_job
from ansible_collections.openisb.backup.plugins.module_utils.host import confidential, jobs, samples
from ansible_collections.openisb.backup.plugins.module_utils.host.jobs import RUNNING
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base.errors import SourceError
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.nbd_uri import parse
from ansible_collections.openisb.backup.plugins.module_utils.saveset.io.source import open_source

ARGUMENTS = dict(
    jobs.ARGUMENTS,
    source={"type": "str", "required": True},
    psk=confidential.option("psk"),
    host={"type": "str", "required": True},
    connect_timeout={"type": "float", "default": 10.0},
)


def knock(export, timeout):
    """Raise SourceError if nothing accepts a connection, for which libnbd would wait too long."""
    try:
        socket.create_connection((export.host, export.port), timeout=timeout).close()
    except OSError as error:
        raise SourceError(
            f"{export.host}, port {export.port}",
            f"this host cannot connect to it ({error})",
            "Let this host connect to the ports that the system chooses for exports (net.ipv4.ip_local_port_range), or "
            "set openisb_data_address of that host to an address that this one can reach",
        ) from error


def read(source, name):
    """Read all of the sample of that name; return its size. Raises SourceError if the content is another."""
    with contextlib.closing(open_source(source)) as opened:
        found = bytearray(opened.size)
        opened.read(0, memoryview(found))
    if found != samples.content(name):
        raise SourceError(
            name, "what was read is not what that export serves", "Make sure that nothing else answers at that address"
        )
    return len(found)


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    require_libraries(module)
    require_host(module, "source")
    source, key = module.params["source"], module.params["psk"]
    export = parse(source)
    with running_job(module, "The connection to {}".format(module.params["host"]), RUNNING):
        knock(export, module.params["connect_timeout"])
        with with_nbd_key(source, key) as address:
            count = read(address, export.name)
    module.exit_json(changed=False, bytes=count)


if __name__ == "__main__":
    main()
