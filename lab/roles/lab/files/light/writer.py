# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The load of a light server: rewrites one block of a file on each of its filesystems, RATE times a second.

writer.py RATE FOLDER...
"""

from __future__ import annotations

import os
import sys
import time


def main(rate: float, folders: list[str]) -> None:
    files = [
        os.open(os.path.join(folder, "load"), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600) for folder in folders
    ]
    number = 0
    while True:
        number += 1
        for file in files:
            os.pwrite(file, b"%020d\n" % number, 0)  # waits while the filesystem is frozen
        time.sleep(1 / rate)


if __name__ == "__main__":
    main(float(sys.argv[1]), sys.argv[2:])
