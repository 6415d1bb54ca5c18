# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Checks of what a drill has brought up: small drivers, each bounded in time, that never leave anything running.

Layers, each importing only those before it: ``errors``, ``places`` (where production's paths are here),
``patterns``, ``record`` (what a check leaves on record), ``isolation`` (namespaces), ``ending`` (of processes),
``bench`` (what a check works with), ``base``, ``space`` (for copies); the drivers ``filesystem``, ``files``,
``gtm``, ``postgresql`` and ``command``; ``known`` (the drivers by name), ``bounded`` (runs one check in a process of
its own), ``defaults`` (what an inventory implies; pure).

Of ``quiesce`` it uses what is common: options, users, processes, the clock. Standard library alone, Python 3.8 or
newer.
"""
