# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters for mounting a LUN's filesystems: thin wrappers around module_utils, where the work is done and tested."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.openisb.backup.plugins.plugin_utils.lazy import load


def idr_mount_options(kind, writable, in_use=False):
    """The options with which a filesystem of this type is mounted."""
    return _told(load("control.drill.mounting").mount_options, kind, writable, in_use)


def idr_mount_type(kind):
    """The type under which a filesystem of this type is mounted."""
    return _told(load("control.drill.mounting").mount_type, kind)


def _told(function, *arguments):
    try:
        return function(*arguments)
    except ValueError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self):
        """Name and function of each."""
        return {"idr_mount_options": idr_mount_options, "idr_mount_type": idr_mount_type}
