# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README.txt in every repository, for a person who has nothing but the repository and its key."""

from __future__ import annotations

README = """\
HOW TO RESTORE FROM THIS FOLDER

This folder is an OpenISB saveset repository: backups of whole volumes (LUNs),
deduplicated, compressed and, unless it was created without encryption,
encrypted. You need:

  - this folder, complete. A copy will do. Do not change, rename or delete
    anything in it by hand.
  - one key: its passphrase, the private key of an escrow key, a recovery
    sheet, or an exported key with its passphrase.
  - a Linux machine with Python 3.11 or newer, such as Debian 12, and enough
    disk space for what you restore. You need neither Ansible nor the old
    backup server.
  - the program isb-saveset.pyz, preferably the copy that your site keeps
    outside this folder, together with this text, the list of Python packages
    that it needs, and those packages (wheels).

In the commands below, /repo stands for this folder and fs1/m for a volume.
Replace them with your own.


1. GET THE PROGRAM, AND VERIFY IT BEFORE YOU RUN IT

   You will give the program your key. This folder contains a copy of the
   program, but anyone who could write to this folder could have replaced it,
   and this text too. So use the copy that was kept elsewhere. Use the one in
   this folder only if there is no other:

     cp /repo/isb-saveset.pyz /opt/isb-saveset.pyz

   Then compute its checksum:

     sha256sum /opt/isb-saveset.pyz

   The result must equal the SHA-256 on the recovery sheet, or the one in the
   file SHA256SUMS that was kept elsewhere with the program. A version has the
   same checksum everywhere, so "make isb-saveset" in the sources of the same
   version of the collection openisb.backup also prints it. If the checksum
   differs, or you have nothing to compare it with, DO NOT RUN THE PROGRAM.
   Get the same version of the collection from its original source, and build
   the program from that.

   From here on, follow the text that the program itself prints. It is the
   same as this one, unless somebody changed this one:

     python3 /opt/isb-saveset.pyz readme


2. INSTALL WHAT THE PROGRAM NEEDS (as root)

     apt install python3-venv
     python3 -m venv /opt/isb
     python3 /opt/isb-saveset.pyz requirements > /opt/requirements.txt
     /opt/isb/bin/pip install --require-hashes -r /opt/requirements.txt

   The list has exact versions and hashes, so no package can be replaced by
   another one.

   No internet on this machine? On another machine with the same Python
   version and processor type, run (better in advance, and keep the result
   with the program):

     pip download --require-hashes -r /opt/requirements.txt -d wheels

   Copy the folder wheels to this machine, and install from it:

     /opt/isb/bin/pip install --no-index --find-links wheels \\
         --require-hashes -r /opt/requirements.txt


3. SEE WHAT IS HERE

     export OPENISB_REPOSITORY=/repo
     alias isb='/opt/isb/bin/python /opt/isb-saveset.pyz'
     isb list

   The last command asks for the passphrase. To avoid typing it each time, put
   it into a file that only you can read, and add this to each command:

     --passphrase-file /root/passphrase

   Instead of the passphrase you can use one of these:

     --private-key escrow-private.pem     the private key of an escrow key
     --recovery-sheet sheet.txt           the groups of the recovery sheet,
                                          typed into a file
     --exported-key key.json              an exported key, if the folder keys
                                          is lost; asks for its passphrase

   The program refuses a repository that is not encrypted, because anybody
   could have put it in place of yours. If yours is not encrypted (repo.json
   says "encryption":"none"), add this instead. Nothing then proves who wrote
   the repository:

     --unencrypted

   Savesets with the same run id, from any number of servers, show the same
   point in time. Restore them together.


4. VERIFY THE REPOSITORY BEFORE YOU RELY ON IT

   This may take long. You may skip it: step 5 verifies all that it writes.

     isb verify --volume fs1/m
     isb verify --without-key

   The result names each damaged object and the savesets that it affects. All
   other savesets can be restored.


5. RESTORE

   To restore the latest saveset of a volume to a disk (lsblk lists the disks)
   or to a new file:

     isb restore fs1/m /dev/sdX
     isb restore fs1/m /srv/fs1-m.img

   If the disk is not blank, the program refuses it, and prints what is on it
   and the disk's identity. If ALL OF THAT may be overwritten, give the
   identity:

     isb restore fs1/m /dev/sdX --overwrite wwn-0x5000c500a0b1c2d3

   To restore the saveset of a certain run, or a certain saveset by the first
   digits of its id:

     isb restore fs1/m:isb-20261123T021500Z-4f1c2a /dev/sdX
     isb restore fs1/m:0d5e82c1 /dev/sdX

   Every chunk is verified before it is written. To also read everything back
   from the target afterwards and compare it, add --check.

   If a restore failed or was interrupted, the target is incomplete. Remove the
   cause, then run the command below. It reads the target first, and writes
   only what is not right yet:

     isb restore fs1/m /dev/sdX --only-changed --overwrite IDENTITY

   The same command also takes a disk back to an older saveset without writing
   all of it. If the repository is damaged here, try another copy of this
   folder, or an older saveset.


6. OR USE A VOLUME AT ONCE, WITHOUT RESTORING IT (as root)

     apt install nbdkit nbdkit-plugin-python nbd-client
     isb serve fs1/m --cow

   This prints how to attach the volume as a block device. With --cow the
   volume is writable. What you write is lost when you stop the program with
   Ctrl-C, and never reaches the repository. This is a quick way to get a few
   files: mount the volume and copy them. The Python of /opt/isb must be the
   system's Python (as in step 2), because nbdkit uses that one. For a machine
   without internet, get the packages in advance on another machine with the
   same release: apt install --download-only puts them into
   /var/cache/apt/archives.


IF SOMETHING GOES WRONG

   "Python library ... cannot be imported"   Step 2 was not done, or you used
        another Python: it must be /opt/isb/bin/python.
   "the secret opens none of its key files"  The key was mistyped, or belongs
        to another repository. The folder keys must be there.
   "it is not what tool.json vouches for"   Reported by verify when
        isb-saveset.pyz or this text was damaged or replaced. Trust neither;
        see step 1.

   For more, run: isb COMMAND --help


WHAT IS IN THIS FOLDER

  repo.json                      what this repository is; authenticated
  keys/                          the master key, wrapped: keep copies elsewhere
  savesets/<volume>/<time>-<id>  one small file per saveset; without it the
                                 saveset does not exist
  maps/<volume>/<id>             where each chunk of a saveset is
  packs/<2 digits>/<id>          the chunks
  pins/                          savesets that no retention policy removes,
                                 and why
  gc/                            who is using the repository, what is about to
                                 be removed, what was discarded inside packs
  checks/                        what was verified, how deeply and when
  sessions/, features/           notes of running backups, or of newer versions
  tmp/                           half-written files of running or ended backups
  isb-saveset.pyz, README.txt    the program, and this text
  tool.json                      which version wrote these two; authenticated

With Ansible and the collection openisb.backup you can also use restore.yml.
The format is described in the collection's docs/saveset-format.md.
"""
