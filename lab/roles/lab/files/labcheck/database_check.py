# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Closes a copied database, checks it with `mupip integ`, and reads it with LABCHECK. Changes the file."""

from __future__ import annotations

import os
from typing import Any

from command import CheckError, attempt, run

DESIGN = "change -segment DEFAULT -file={file}\nexit\n"

# Seconds; reading a whole database of the lab takes a fraction of one.
READ_TIMEOUT = 60


class Database:
    """GT.M on one database file."""

    def __init__(self, file: str, gtm_dist: str, routines: str) -> None:
        self.file = file
        self.gtm_dist = gtm_dist
        folder = os.path.dirname(file)
        self.env = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": folder,
            "gtm_dist": gtm_dist,
            "gtm_tmp": folder,
            "gtmgbldir": os.path.join(folder, "check.gld"),
            "gtmroutines": f"{folder}({routines}) {gtm_dist}/libgtmutil.so {gtm_dist}",
        }
        run([gtm_dist + "/mumps", "-run", "GDE"], DESIGN.format(file=file), self.env)

    def check(self) -> tuple[dict[str, Any], str]:
        """Return the result of `mupip integ` (a dict of clean and said), and LABCHECK's lines."""
        try:
            # The copy was taken while in use: it refers to its server's shared memory, and is marked as frozen.
            self._mupip("rundown", "-file", self.file, "-override")
            self._mupip("freeze", "-off", "-override", "*")
            integ = self._mupip("integ", "-noonline", "-file", self.file)
            clean = integ.returncode == 0 and "No errors detected by integ" in integ.stdout
            return {"clean": clean, "said": integ.stdout.strip()[-4000:]}, self._told()
        finally:
            # Leave no shared memory behind.
            self._mupip("rundown", "-file", self.file, "-override")

    def _told(self) -> str:
        try:
            return attempt([self.gtm_dist + "/mumps", "-run", "LABCHECK"], "", self.env, READ_TIMEOUT).stdout
        except CheckError as error:
            # A damaged database may send its reader into an endless loop.
            return f"error\tall\t{error}\n"

    def _mupip(self, *arguments: str) -> Any:
        return attempt([self.gtm_dist + "/mupip", *arguments], "", self.env)
