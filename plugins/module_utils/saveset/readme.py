# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The README.txt that every repository carries: for somebody who has nothing but the repository and its key."""

from __future__ import annotations

README = """\
HOW TO RESTORE FROM THIS FOLDER

This folder is an OpenISB saveset repository: backups of whole volumes (LUNs),
deduplicated, compressed and, unless created otherwise, encrypted. You need

  - this folder, whole. A copy is as good. Do not change, rename or remove
    anything in it by hand.
  - its passphrase; or the private key of an escrow key, or a recovery sheet,
    or an exported key with its passphrase.
  - a Linux machine with Python 3.11 or newer, such as Debian 12, with room
    for what you restore. Neither Ansible nor the old backup server.
  - the program isb-saveset.pyz, best the copy that your site keeps away from
    this folder, together with this text, the list of packages and their wheels.

Below, /repo stands for this folder, and fs1/m for a volume.


1. GET THE PROGRAM, AND PROVE IT BEFORE YOU RUN IT

   You will give it your passphrase. There is a copy of it in this folder, but
   whoever could write to this folder could put another program there, or
   another text in the place of this one. So take the copy that was kept
   elsewhere; and take this one only when there is no other:

     cp /repo/isb-saveset.pyz /opt/isb-saveset.pyz

   Then prove what you took:

     sha256sum /opt/isb-saveset.pyz

   What it prints must be the SHA-256 on the recovery sheet, or the one in the
   file SHA256SUMS that was kept elsewhere with the program. The same version
   gives the same bytes everywhere: "make isb-saveset" in the sources of the
   collection openisb.backup tells it, too. When it is another one, or you have
   nothing to compare it with, DO NOT RUN IT: get the collection of the same
   version from where you got it first, and make the program from that.

   From then on follow the text that the program itself prints, which is this
   one when nobody changed it:

     python3 /opt/isb-saveset.pyz readme


2. INSTALL WHAT THE PROGRAM NEEDS (as root)

     apt install python3-venv
     python3 -m venv /opt/isb
     python3 /opt/isb-saveset.pyz requirements > /opt/requirements.txt
     /opt/isb/bin/pip install --require-hashes -r /opt/requirements.txt

   The list has exact versions and hashes, so nobody can slip in others.

   Machine without internet? On another one with the same Python version and
   processor type (do this beforehand, and keep the result with the program):

     pip download --require-hashes -r /opt/requirements.txt -d wheels

   carry the folder wheels over, and install from it:

     /opt/isb/bin/pip install --no-index --find-links wheels \\
         --require-hashes -r /opt/requirements.txt


3. SEE WHAT THERE IS

     export OPENISB_REPOSITORY=/repo
     alias isb='/opt/isb/bin/python /opt/isb-saveset.pyz'
     isb list

   It asks for the passphrase. So that it does not ask each time, put the
   passphrase into a file that only you can read, and add to each command:

     --passphrase-file /root/passphrase

   In place of a passphrase:

     --private-key escrow-private.pem     the private key of an escrow key
     --recovery-sheet sheet.txt           the groups of the sheet, typed in
     --exported-key key.json              an exported key, where the folder
                                          keys is lost; asks its passphrase

   A folder that is not encrypted is refused, as anybody could have put it here
   in the place of yours. If yours is not encrypted (repo.json says
   "encryption":"none"), add this instead; nothing proves who wrote it then:

     --unencrypted

   Savesets with the same run id, of however many servers, belong to one
   point in time: restore those together.


4. CHECK BEFORE YOU RELY ON IT (may take long; step 5 proves all it writes)

     isb verify --volume fs1/m
     isb verify --without-key

   Damage is named with the savesets it hurts. The others can be restored.


5. RESTORE

   The latest saveset of a volume, to a disk (lsblk shows what is what), or
   to a new file:

     isb restore fs1/m /dev/sdX
     isb restore fs1/m /srv/fs1-m.img

   A disk that is not blank is refused, with what is on it and the disk's own
   identity. If ALL OF THAT may be written over, name the identity:

     isb restore fs1/m /dev/sdX --overwrite wwn-0x5000c500a0b1c2d3

   That of a certain run, or a certain saveset by the first digits of its id:

     isb restore fs1/m:isb-20261123T021500Z-4f1c2a /dev/sdX
     isb restore fs1/m:0d5e82c1 /dev/sdX

   Every chunk is proven before it is written. To have all of it read back
   from the target and compared when it is written, add --check.

   When it ended with an error, or was interrupted, the target is incomplete:
   cure the cause, and run it again so. What is on the target is read first,
   and only what is not right yet is written:

     isb restore fs1/m /dev/sdX --only-changed --overwrite IDENTITY

   The same takes a disk back to an older saveset without writing all of it.
   Damaged here? Try another copy of this folder, or an older saveset.


6. OR USE A VOLUME AT ONCE, WITHOUT RESTORING IT (as root)

     apt install nbdkit nbdkit-plugin-python nbd-client
     isb serve fs1/m --cow

   It tells how to attach the volume as a block device. With --cow it can be
   written; what is written is lost when you end it with Ctrl-C. Nothing of it
   ever reaches the repository. A few files are quickly got that way: mount it,
   and copy them. The Python of /opt/isb must be the system's (step 2), for
   nbdkit uses that one. For a machine without internet fetch the packages
   beforehand, on another one of the same release: apt install --download-only
   puts them into /var/cache/apt/archives.


WHEN SOMETHING IS WRONG

   "Python library ... cannot be imported"   step 2 is missing, or you ran
        another Python: it must be /opt/isb/bin/python.
   "the secret opens none of its key files"  mistyped, or another repository's
        passphrase. The folder keys must be there.
   "it is not what tool.json vouches for"   verify says so when isb-saveset.pyz
        or this text was damaged or replaced. Trust neither; see step 1.

   isb COMMAND --help   tells the rest.


WHAT IS IN THIS FOLDER

  repo.json                      what this repository is; authenticated
  keys/                          the master key, wrapped: keep copies elsewhere
  savesets/<volume>/<time>-<id>  one small file a saveset; without it the
                                 saveset does not exist
  maps/<volume>/<id>             where each chunk of a saveset is
  packs/<2 digits>/<id>          the chunks
  pins/                          which savesets stay whatever a retention policy
                                 says, and why
  gc/                            who uses the repository, what is about to be
                                 removed, what was given up inside packs
  checks/                        what was verified, how deep and when
  sessions/, features/           notes of running, or of newer, programs
  tmp/                           half-written files of running or ended backups
  isb-saveset.pyz, README.txt    the program, and this text
  tool.json                      which version put these two here; authenticated

With Ansible and the collection openisb.backup there is also restore.yml. The
format is described in the collection's docs/saveset-format.md.
"""
