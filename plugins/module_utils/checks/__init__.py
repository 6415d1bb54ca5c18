# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Recovery checks of a drill's copies: small drivers, each with a time limit, that never leave anything running.

The content of a copy is untrusted. None of its names is passed to a program, no link leads out of it, and the programs
that read it have no privileges.

Layers, each importing only those before it: ``errors``, ``beneath`` (opens what is in a copy), ``places`` (maps
production's paths to this host), ``patterns``, ``record`` (the record of a check), ``isolation`` (namespaces and
unprivileged programs), ``ending`` (of processes), ``bench`` (the tools of a check), ``base``, ``space`` (copies),
``idmap`` and ``owned`` (the files for unprivileged programs), ``pgdata``; the drivers ``filesystem``, ``files``,
``gtm``, ``postgresql`` and ``command``; ``known`` (the drivers by name), ``bounded`` (runs one check in its own
process), ``defaults`` (what an inventory implies; pure).

Options, commands, users and processes are those of ``host``. Standard library only, Python 3.8 or newer.
"""
