# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Functions of module_utils for filters, imported when a filter is first used.

Each of Ansible's workers that uses one filter of a collection imports all of the collection's filter files, and
recompiles what they import. So those files import nothing of ours when they are loaded.
"""

from __future__ import annotations

import importlib

PLUGINS = "ansible_collections.openisb.backup.plugins."
MODULE_UTILS = PLUGINS + "module_utils."


def load(name):
    """Return a module by its name in module_utils (``control.text``) or in plugins (``plugin_utils.warnings``)."""
    return importlib.import_module((PLUGINS if name.startswith("plugin_utils.") else MODULE_UTILS) + name)


def lazy(name):
    """Return a function of module_utils, by its name there: ``control.text.rate``."""
    module, _dot, function = name.rpartition(".")

    def call(*arguments, **options):
        return getattr(load(module), function)(*arguments, **options)

    return call
