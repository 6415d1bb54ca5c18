# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Give pip to the empty environments that ansible-test makes, from Python's own ensurepip and a package index.

ansible-test runs a downloaded script for that, from a place that not every machine reaches. scripts/sanity puts this
file where ansible-test looks for an earlier download; it is called with pip's options and `pip==VERSION`.
"""

import subprocess
import sys


def main() -> None:
    """Install what the arguments name; the two options that only the original script knows are dropped."""
    arguments = [argument for argument in sys.argv[1:] if argument not in ("--no-setuptools", "--no-wheel")]
    # In a process of its own: ensurepip makes its process deaf to pip's configuration.
    subprocess.check_call([sys.executable, "-m", "ensurepip"], stdout=subprocess.DEVNULL)
    subprocess.check_call([sys.executable, "-m", "pip", "install", *arguments])


if __name__ == "__main__":
    main()
