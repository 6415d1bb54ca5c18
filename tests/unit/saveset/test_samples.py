# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Samples: exports that preflight makes to try the way, and that leave nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.openisb.backup.plugins.module_utils.control.answers import nbd_address
from ansible_collections.openisb.backup.plugins.module_utils.host import jobs, processes, samples
from ansible_collections.openisb.backup.plugins.module_utils.host.nbd_exports import Exports
from ansible_collections.openisb.backup.plugins.module_utils.saveset.base import deps
from ansible_collections.openisb.backup.plugins.modules import nbd_export, nbd_sample

RUN = "isb-20261123T021500Z-4f1c2a"
NAME = f"{RUN}.sample"

pytestmark = pytest.mark.skipif(
    deps.nbd is None or not shutil.which("nbdkit"), reason="needs nbdkit and the Python module nbd (python3-libnbd)"
)


@pytest.fixture
def exports(tmp_path: Path) -> Iterator[Exports]:
    exports = Exports(str(tmp_path / "run"))
    yield exports
    for record in exports.list():
        exports.stop(record["name"])


def called(module: Any, capsys: Any, **arguments: Any) -> dict[str, Any]:
    """What a module returns."""
    with patch_module_args(arguments), pytest.raises(SystemExit):
        module.main()
    result: dict[str, Any] = json.loads(capsys.readouterr().out)
    return result


def read(capsys: Any, tmp_path: Path, record: dict[str, Any], key: str | None, **more: Any) -> dict[str, Any]:
    where = {"address": "127.0.0.1", "tls": bool(key)}
    given = {"source": nbd_address({"export": record}, where), "host": "127.0.0.1", "job": NAME}
    return called(nbd_sample, capsys, **{**given, "psk": key, "run_dir": str(tmp_path / "run"), **more})


@pytest.mark.parametrize("tls", [True, False])
def test_a_sample_is_served_and_read_as_a_lun_would_be(
    exports: Exports, tmp_path: Path, capsys: Any, tls: bool
) -> None:
    common = {"name": NAME, "run_id": RUN, "run_dir": str(tmp_path / "run")}
    made = called(nbd_export, capsys, **common, sample=True, address="127.0.0.1", tls=tls)
    assert made["changed"] and made["export"]["readonly"], made
    assert not called(nbd_export, capsys, **common, sample=True, address="127.0.0.1", tls=tls)["changed"]
    found = read(capsys, tmp_path, made["export"], made["psk"] or None)
    assert found["bytes"] == samples.SIZE, found
    assert jobs.of_run(str(tmp_path / "run"), RUN) == [NAME]
    called(nbd_export, capsys, run_id=RUN, run_dir=str(tmp_path / "run"), state="absent")
    assert os.listdir(exports.folder) == []


def test_a_sample_that_nobody_ends_ends_by_itself_and_is_forgotten(
    exports: Exports, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(samples, "LIFETIME", 1)
    record = exports.start_sample(NAME, "127.0.0.1", True, RUN)
    deadline = time.monotonic() + 10
    while processes.is_running(record):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(samples.LIFETIME)  # its record is younger than the process
    exports.start_sample("another", "127.0.0.1", True, RUN)
    assert [each["name"] for each in exports.list()] == ["another"]
    assert not [name for name in os.listdir(exports.folder) if name.startswith(NAME)]


def test_other_exports_live_for_ever_and_are_never_forgotten(exports: Exports, tmp_path: Path) -> None:
    lun = tmp_path / "lun"
    lun.write_bytes(bytes(4096))
    record = exports.start("e", str(lun), "127.0.0.1", True, True, RUN)
    processes.stop(record)
    exports.start_sample(NAME, "127.0.0.1", True, RUN)
    assert [each["name"] for each in exports.list()] == ["e", NAME]


def test_something_else_that_answers_is_told(exports: Exports, tmp_path: Path, capsys: Any) -> None:
    lun = tmp_path / "lun"
    lun.write_bytes(bytes(4096))
    record = exports.start(NAME, str(lun), "127.0.0.1", True, True, RUN)
    found = read(capsys, tmp_path, record, exports.key(NAME))
    assert "is not what that export serves" in found["msg"] and "The connection to 127.0.0.1" in found["msg"]


def test_a_wrong_key_is_told(exports: Exports, tmp_path: Path, capsys: Any) -> None:
    record = exports.start_sample(NAME, "127.0.0.1", True, RUN)
    found = read(capsys, tmp_path, record, "0" * 64)
    assert found["failed"] and "gnutls" in found["msg"]


def test_where_nobody_answers_the_firewall_is_named(tmp_path: Path, capsys: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    found = read(capsys, tmp_path, {"name": NAME, "port": port}, "0" * 64)
    assert f"127.0.0.1, port {port}: this host cannot connect to it" in found["msg"]
    assert "net.ipv4.ip_local_port_range" in found["msg"] and "openisb_data_address" in found["msg"]


@pytest.mark.parametrize("more", [{}, {"path": "/etc/hostname", "sample": True}])
def test_an_export_is_of_a_path_or_a_sample(tmp_path: Path, capsys: Any, more: dict[str, Any]) -> None:
    given = {"name": NAME, "run_id": RUN, "address": "127.0.0.1", "run_dir": str(tmp_path)}
    assert "either a path or 'sample: true'" in called(nbd_export, capsys, **given, **more)["msg"]
    assert list(tmp_path.iterdir()) == []
