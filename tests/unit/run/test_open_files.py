# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A controller that may open too few files for its servers says so before it freezes any."""

from __future__ import annotations

import resource
import subprocess
import sys
import textwrap

import pytest
from ansible_collections.openisb.backup.plugins.module_utils.host import open_files


@pytest.mark.parametrize(("hard", "hosts", "says"), [(4096, 400, ""), (1024, 400, "needs 3300"), (-1, 10**6, "")])
def test_a_limit_that_is_too_low_for_the_hosts(monkeypatch, hard, hosts, says):
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (256, hard))
    found = open_files.problems(hosts)
    assert bool(found) == bool(says)
    if says:
        assert says in found[0] and "ulimit -Hn" in found[0] and "a process may have 1024 files open" in found[0]


def test_a_process_allows_itself_all_that_it_may():
    """A login's usual limit, of 1024, ends at some hundred servers."""
    program = """
        import resource, sys
        sys.path[:0] = {path!r}
        import ansible_collections.openisb.backup.plugins.module_utils.host.open_files as open_files
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, hard))
        open_files.allow_all()
        print(len([open("/dev/null") for _each in range(100)]))
    """
    code = textwrap.dedent(program).format(path=[sys.path[0], "collections"])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "100"
