# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions of module_utils for filters, imported when a filter is first used.

In each of its workers that uses one filter of a collection, Ansible imports all its files with filters, and compiles
anew what they import. So those files import nothing of ours by themselves.
"""

from __future__ import annotations

import importlib

MODULE_UTILS = "ansible_collections.openisb.backup.plugins.module_utils."


def load(name):
    """A module of module_utils, by its name there: ``idr.plan``."""
    return importlib.import_module(MODULE_UTILS + name)


def lazy(name):
    """A function of module_utils, by its name there: ``idr.plan.opening``."""
    module, _dot, function = name.rpartition(".")

    def call(*arguments, **options):
        return getattr(load(module), function)(*arguments, **options)

    return call
