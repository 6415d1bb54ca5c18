# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of what a drill has brought up: small drivers, each bounded in time, that never leave anything running.

What is in a copy is hostile. None of its names reaches a program, no link leads out of it, and the programs that read
it have no rights.

Layers, each importing only those before it: ``errors``, ``beneath`` (opens what is in a copy), ``places`` (where
production's paths are here), ``patterns``, ``record`` (what a check leaves on record), ``isolation`` (namespaces, and
programs without rights), ``ending`` (of processes), ``bench`` (what a check works with), ``base``, ``space`` (for
copies), ``idmap`` and ``owned`` (what programs without rights work on), ``pgdata``; the drivers ``filesystem``,
``files``, ``gtm``, ``postgresql`` and ``command``; ``known`` (the drivers by name), ``bounded`` (runs one check in a
process of its own), ``defaults`` (what an inventory implies; pure).

Of ``quiesce`` it uses what is common: options, users, processes, the clock. Standard library alone, Python 3.8 or
newer.
"""
