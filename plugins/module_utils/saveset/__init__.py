# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The saveset engine: deduplicated, compressed, encrypted, verified copies of volumes.

The package does not depend on Ansible.  The format is specified in ``docs/saveset-format.md``.  Start with
:class:`.repository.Repository`, :func:`.store.registry.open_store`, :func:`.io.source.open_source` and
:func:`.io.target.open_target`; ``docs/architecture.md`` says what each folder holds.
"""
