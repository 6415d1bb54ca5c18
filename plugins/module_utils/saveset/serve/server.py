# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run nbdkit for a saveset: what it needs, its command line, its start and its end."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import typing as t
from dataclasses import dataclass

from ..base import memory
from ..base.errors import InvalidValue, MissingLibrary, SavesetError
from ..collect.lease import SERVE
from ..format.commit import SavesetInfo
from ..io.tls import prefer_aes
from ..program.tool import PACKAGE_HOME
from ..repository import Repository
from .endpoint import Endpoint
from .nbdplugin import encode_order

#: nbdkit locates its Python's own modules by the python3 on its PATH, which must be the system's.
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
START_S = 60.0
#: What is freed is kept for the next chunk, and new memory comes in huge pages: page faults, each a few microseconds on
#: a virtual machine, would take half as long as decompressing.  Other C libraries than glibc ignore it.
_MALLOC = ":".join(
    f"glibc.malloc.{name}={value}"
    for name, value in {
        "arena_max": 1,
        "hugetlb": 1,
        "mmap_threshold": 32 << 20,
        "trim_threshold": 128 << 20,
    }.items()
)
END_S = 1.0  # nbdkit waits for its clients to disconnect; nothing is lost if we do not
_POLL_S = 0.02

#: The embedded Python's own libraries, often older ones, must not take precedence.
_SCRIPT = """\
import sys
own = [path for path in sys.path if not path.endswith("-packages")]
sys.path[:] = [{home!r}, *own, *{libraries!r}]
from saveset.serve.nbdplugin import *
"""


class ServerEnded(SavesetError):
    """nbdkit ended on its own."""


@dataclass(frozen=True)
class Layers:
    """Filters between the saveset and its reader.

    ``cow``: a writable view, kept in ``scratch``; ``cache``: how many bytes of what was read may be kept there. The
    data there is in clear, so ``scratch`` is best in memory.
    """

    cow: bool = False
    cache: int = 0
    scratch: str = ""

    def filters(self) -> list[str]:
        """nbdkit's arguments for them, the filter next to the client first."""
        wanted = (("cow", self.cow), ("cache", bool(self.cache)))
        filters = [f"--filter={name}" for name, is_wanted in wanted if is_wanted]
        return filters if self.cow else ["--readonly", *filters]

    def parameters(self) -> list[str]:
        """The filters' parameters."""
        return ["cache-on-read=true", f"cache-max-size={self.cache}"] if self.cache else []


def serve(
    nbdkit: str,
    repository: Repository,
    info: SavesetInfo,
    *,
    readahead: bool,
    layers: Layers,
    endpoint_in: t.Callable[[str], Endpoint],
    started: t.Callable[[Endpoint], None],
) -> t.NoReturn:
    """Serve a saveset until an exception, such as that of a signal, ends it; nothing is left behind.

    :param nbdkit: what find_nbdkit() found.
    :param endpoint_in: where to serve; it is given a folder that is private to this user, for a socket or a key.
    :param started: called once clients can connect.
    Raises ServerEnded, InvalidValue, NotFound, WrongSecret (a write-only key), and what the two functions raise.
    """
    order = encode_order(repository, info, readahead)
    with private_folder() as folder, contextlib.ExitStack() as cleanup:
        cleanup.enter_context(repository.reading(SERVE, info))
        endpoint = endpoint_in(folder)
        if endpoint.socket:
            cleanup.callback(_remove, endpoint.socket)
        process = start(nbdkit, folder, endpoint, layers, order)
        cleanup.callback(stop, process)
        started(endpoint)
        raise ended(process.wait())


@contextlib.contextmanager
def private_folder() -> t.Iterator[str]:
    """A folder that only this user can enter, in memory where possible, removed at the end."""
    folder = tempfile.mkdtemp(prefix="isb-saveset-", dir=memory.folder() or None)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find_nbdkit() -> str:
    """The path of an nbdkit that can run this Python's modules.  Raises MissingLibrary."""
    nbdkit = shutil.which("nbdkit", path=os.pathsep.join(filter(None, (os.environ.get("PATH"), _PATH))))
    if nbdkit is None:
        raise MissingLibrary(
            "nbdkit", "it is not installed", "Install it. On Debian: apt install nbdkit nbdkit-plugin-python"
        )
    asked = subprocess.run([nbdkit, "python", "--dump-plugin"], env=environment(), capture_output=True, check=False)
    if asked.returncode:
        raise MissingLibrary(
            "nbdkit's python plugin",
            "it is not installed, or does not load",
            "Install it. On Debian: apt install nbdkit-plugin-python",
        )
    version = re.search(rb"^python_version=(\d+)\.(\d+)", asked.stdout, re.MULTILINE)
    theirs = (int(version[1]), int(version[2])) if version else (0, 0)
    if theirs != sys.version_info[:2]:
        named = ".".join(map(str, theirs))
        raise MissingLibrary(
            "nbdkit's python plugin",
            f"it is built for Python {named} and cannot use the libraries of Python {sys.version_info[0]}."
            f"{sys.version_info[1]}, which runs isb-saveset",
            f"Run isb-saveset with the system's Python {named} (often /usr/bin/python3, or a virtual environment made "
            "with it) that has blake3, zstandard and cryptography",
        )
    return nbdkit


def start(nbdkit: str, folder: str, endpoint: Endpoint, layers: Layers, order: bytes) -> subprocess.Popen[bytes]:
    """Start nbdkit, and return when it accepts connections.  Raises ServerEnded, InvalidValue.

    :param folder: private to this user, for as long as nbdkit runs.
    :param order: what nbdplugin.config() reads.
    """
    script, pid_file = os.path.join(folder, "saveset.py"), os.path.join(folder, "pid")
    write_script(script)
    settings = prefer_aes(os.path.join(folder, "tls")) if endpoint.psk else {}
    with order_pipe(order) as pipe:
        command = [nbdkit, "--foreground", "--exit-with-parent", "--pidfile", pid_file, *endpoint.arguments()]
        process = subprocess.Popen(
            [*command, *plugin_words(layers, script, pipe)],
            env={**environment(layers.scratch), **settings},
            pass_fds=[pipe],
            stdin=subprocess.DEVNULL,
        )
    try:
        _wait_until_ready(process, pid_file)
    except BaseException:
        stop(process)
        raise
    return process


def write_script(path: str, home: str = PACKAGE_HOME) -> None:
    """Write the script that nbdkit's python plugin runs.

    :param home: the folder, or the archive, that holds the package ``saveset``.
    """
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(_SCRIPT.format(home=home, libraries=_libraries()))


def plugin_words(layers: Layers, script: str, order_fd: int) -> list[str]:
    """nbdkit's arguments, except those that say where it listens.

    :param order_fd: the descriptor, in nbdkit, of order_pipe().
    """
    return [*layers.filters(), "python", script, f"order-fd={order_fd}", *layers.parameters()]


@contextlib.contextmanager
def order_pipe(order: bytes) -> t.Iterator[int]:
    """A descriptor that ``order`` can be read from, for nbdkit to inherit.  Raises InvalidValue."""
    read_end, write_end = os.pipe()
    try:
        _fill(write_end, order)
        yield read_end
    finally:
        os.close(read_end)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End nbdkit, even when clients are connected."""
    if process.poll() is None:
        process.terminate()
    try:
        process.wait(END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def ended(status: int) -> ServerEnded:
    """The error for an nbdkit that ended on its own."""
    return ServerEnded("nbdkit", f"it ended with status {status}", "See what it wrote above")


def environment(scratch: str = "") -> dict[str, str]:
    """nbdkit's environment: nothing of ours, which may hold the passphrase."""
    return {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "GLIBC_TUNABLES": _MALLOC,
        **({"TMPDIR": scratch} if scratch else {}),
    }


def _libraries() -> list[str]:
    """The folders where this Python finds third-party modules."""
    paths = sysconfig.get_paths()
    own = {os.path.realpath(path) for path in (paths["stdlib"], paths["platstdlib"])}
    own |= {os.path.join(path, "lib-dynload") for path in own}
    found = [os.path.abspath(path) for path in sys.path if os.path.isdir(path)]
    return [path for path in found if os.path.realpath(path) not in own]


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _fill(write_end: int, order: bytes) -> None:
    """Write the order to the pipe and close it before the other side reads, so it must fit into the pipe's buffer."""
    os.set_blocking(write_end, False)
    try:
        written = os.write(write_end, order)
    except BlockingIOError:
        written = 0
    finally:
        os.close(write_end)
    if written != len(order):
        raise InvalidValue("the secret", "it is too long", "Give a shorter passphrase or key file")


def _wait_until_ready(process: subprocess.Popen[bytes], pid_file: str) -> None:
    deadline = time.monotonic() + START_S
    while not os.path.exists(pid_file):
        status = process.poll()
        if status is not None:
            raise ended(status)
        if time.monotonic() > deadline:
            raise ServerEnded("nbdkit", f"it is not ready after {START_S:.0f} s", "See what it wrote above")
        time.sleep(_POLL_S)
