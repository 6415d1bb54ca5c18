# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a file of the collection imports from the collection, as its source says."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator

PACKAGE = "ansible_collections.openisb.backup.plugins"


def own_imports(nodes: Iterable[ast.AST], package: str) -> Iterator[tuple[str, list[str]]]:
    """The modules of the collection that these nodes import from, below PACKAGE, each with the names taken from it.

    ``package``: that of the file, below PACKAGE.
    """
    for node in nodes:
        if not isinstance(node, ast.ImportFrom):
            continue
        module = node.module or ""
        if node.level:
            above = package.split(".")[: len(package.split(".")) - node.level + 1]
            module = ".".join([*above, module] if module else above)
        elif module.startswith(PACKAGE + "."):
            module = module[len(PACKAGE) + 1 :]
        else:
            continue
        yield module, [alias.name for alias in node.names]
