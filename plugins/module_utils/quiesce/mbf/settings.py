# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a site runs MBF: validated, and turned into the command line."""

from __future__ import annotations

import os
import re
import stat
from typing import Any

from ...host.errors import OptionError
from .codes import OPTIONAL, RELEASED

CENSUS, QUIESCE, UNQUIESCE = "Census", "Quiesce", "Unquiesce"

ARGUMENT, STDIN, SESSION_FILE = "argument", "stdin", "session_file"
PASSWORD_BY = (ARGUMENT, STDIN, SESSION_FILE)
REFUSE, WARN = "refuse", "warn"
MODES = ("", "force", "quiet")

LATE = 30.0
"""Seconds after T= in which MBF may still answer; a later answer does not count."""

UNQUIESCE_TIMEOUT = 60.0
"""Seconds that an unquiesce may take."""

_INTERMEDIARY = re.compile(r"^[A-Za-z0-9.:\[\]_-]+\Z")
_ENVIRONMENT = {"HOME": "/root", "LC_ALL": "C", "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Settings:
    """The options of the module and the driver ``mbf``, from ``values`` by the same names. Raises OptionError."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.executable: str = values["executable"]
        self.intermediaries: list[str] = list(values["intermediaries"])
        self.user: str = values.get("user") or ""
        self.password: str = values.get("password") or ""
        self.password_file: str = values.get("password_file") or ""
        self.password_by: str = values.get("password_by") or ARGUMENT
        self.session_file: str = values.get("session_file") or ""
        self.mode: str = values.get("mode") or ""
        self.seconds = _whole("seconds", values.get("seconds"))
        self.proceed = _codes("proceed", values.get("proceed") or [0])
        self.released = _codes("released", values.get("released") or RELEASED)
        self.environment: dict[str, str] = dict(_ENVIRONMENT, **(values.get("environment") or {}))
        self._check()

    def _check(self) -> None:
        _one_of("password_by", self.password_by, PASSWORD_BY)
        _one_of("mode", self.mode, MODES)
        wrong = [each for each in self.intermediaries if not _INTERMEDIARY.match(each)]
        if wrong:
            raise OptionError(f"mbf: '{wrong[0]}' is not an intermediary: write host or host:port")
        if self.password_by == SESSION_FILE and not self.session_file:
            raise OptionError("mbf: 'password_by' is session_file, so 'session_file' is required")
        if self.password_by != SESSION_FILE:
            if not self.user:
                raise OptionError("mbf: 'user' is required: the user who logs in at the intermediary")
            if bool(self.password) == bool(self.password_file):
                raise OptionError("mbf: give either 'password_file' or 'password', and only one of them")

    def bounded(self, timeout: float) -> float:
        """Seconds to wait for a census or a quiesce: ``timeout``, but no longer than MBF itself may take."""
        return min(timeout, self.seconds + LATE) if self.seconds else timeout

    @property
    def folder(self) -> str:
        """The directory in which MBF must run: its own."""
        return os.path.dirname(self.executable)

    @property
    def secret_file(self) -> str:
        """The file on this machine with the password; empty if there is none."""
        return self.session_file if self.password_by == SESSION_FILE else self.password_file

    def read_password(self) -> str:
        """The password, from its file if it is in one; empty if MBF reads it on its own. Raises OptionError."""
        if self.password_by == SESSION_FILE:
            return ""
        password = self.password or _first_line(self.password_file)
        if not password or any(ord(character) < 32 for character in password):
            raise OptionError(f"mbf: there is no password in the first line of {self.password_file or 'password'}")
        return password

    def arguments(self, command: str, password: str) -> list[str]:
        """The command line."""
        words = [self.executable, f"C={command}", *(f"I={each}" for each in self.intermediaries)]
        pairs = {
            "U": self.user,
            "P": password if self.password_by == ARGUMENT else "",
            "T": str(self.seconds) if self.seconds else "",
            "M": self.mode,
            "F": self.session_file,
        }
        return words + [f"{key}={value}" for key, value in pairs.items() if value]

    def given(self, password: str) -> str:
        """The standard input of MBF, or of the site's wrapper for it."""
        return password + "\n" if self.password_by == STDIN else ""


def readable_by_others(path: str) -> bool:
    """Whether anyone but the owner may read or write a file. Raises OSError."""
    return bool(stat.S_IMODE(os.stat(path).st_mode) & 0o077)


def _first_line(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as stream:
            return stream.readline().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise OptionError(f"mbf: the password cannot be read from {path}: {reason}") from None


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise OptionError(f"mbf: '{name}' must be one of {', '.join(filter(None, choices))}, not '{value}'")


def _codes(name: str, values: Any) -> list[int]:
    codes = sorted({_whole(name, code) for code in values})
    if 0 not in codes or set(codes) - {0, *OPTIONAL}:
        raise OptionError(f"mbf: '{name}' must contain 0, and besides that only {', '.join(map(str, OPTIONAL))}")
    return codes


def _whole(name: str, value: Any) -> int:
    try:
        number = int(value or 0)
    except (TypeError, ValueError):
        number = -1
    if number < 0:
        raise OptionError(f"mbf: '{name}' must be a whole number, 0 or more, not {value!r}")
    return number
