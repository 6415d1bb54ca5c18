# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""MEDITECH's MBF: its command line, its output, and the meaning of its exit codes. It has no public wire protocol.

Layers, each importing only those before it: ``answers``; ``codes``, ``settings``; ``exposure``, ``process``;
``client``.
What is not certain about MBF is a setting, and marked "unproven" in docs/meditech.md.
"""
