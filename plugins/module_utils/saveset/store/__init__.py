# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the objects of a repository are kept.

``store`` is the interface, ``names`` what objects may be called, ``registry`` the stores by scheme.  Each store is a
file: ``local`` is the one in a folder, on top of ``beneath``, ``appending``, ``liveness`` and ``refusal``.
"""
