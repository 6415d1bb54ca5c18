# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Quiesces a server: the drivers that freeze and thaw, and the holder that bounds a hold in time.

Layers, each importing only those before it: ``errors``, ``sessions``, ``uncover``, ``cgroups``, ``backing``; ``mbf``
(MEDITECH's command line); ``drivers``; ``hold`` (the state machine), ``runner`` (its threads); ``records``,
``protocol``, ``daemon``, ``watch``; ``server``, ``takeover``, ``guard``, ``partner``, ``holder`` (the processes);
``manage`` (what the modules call).

Standard library only, Python 3.8 or newer.
"""
