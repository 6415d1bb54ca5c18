# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The saveset engine: deduplicated, compressed, encrypted, verified copies of volumes.

The package knows no Ansible.  Its format is written down in ``docs/saveset-format.md``.  Start with
:class:`.repository.Repository`, :func:`.store.open_store`, :func:`.source.open_source` and :func:`.target.open_target`.
"""
