# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README.txt that every repository carries."""

from __future__ import annotations

README = """\
This folder is an OpenISB saveset repository.

It holds backups of whole volumes (LUNs): deduplicated, compressed and, unless created otherwise, encrypted.  Do not
change, rename or remove anything in it by hand.  Copying the whole folder gives a working copy of the repository.

What you need to restore
  - this folder, whole
  - a passphrase that reads it, the private key of an escrow key, an exported key, or a recovery sheet (unless
    repo.json says "encryption":"none")
  - Python 3.11 or newer with:  pip install 'blake3>=1' 'zstandard>=0.22' 'cryptography>=50'
  - the collection openisb.backup, or only its folder plugins/module_utils/saveset

With Ansible
  ansible-playbook restore.yml      (see the collection's documentation)

Without Ansible, in the folder that holds the folder saveset/
  python3 - <<'END'
  from saveset import repository, secret, store, target
  repo = repository.Repository.open(store.open_store("/path/of/this/folder"), secret.Secret(b"the passphrase"))
  for info in repo.savesets():
      print(info.volume, info.time, info.verdict, info.id)
  saveset = repo.find("fs1/m")                       # the latest one of volume fs1/m
  with target.open_target("/path/of/a/new/file", saveset.size) as to:
      print(saveset.restore(to))                     # every chunk is checked before it is written
  END

What is in it
  repo.json                      what this repository is; authenticated
  keys/                          the master key, wrapped in one or several ways: keep a copy elsewhere
  savesets/<volume>/<time>-<id>  one small file a saveset; without it the saveset does not exist
  maps/<volume>/<id>             where each chunk of a saveset is
  packs/<2 digits>/<id>          the chunks
  pins/                          which savesets stay whatever the retention policy says, and why
  gc/                            who uses the repository, what is about to be removed, what was given up inside packs
  features/                      used by later versions
  tmp/                           half-written files of running, or ended, backups

The format is described in docs/saveset-format.md of the collection.
"""
