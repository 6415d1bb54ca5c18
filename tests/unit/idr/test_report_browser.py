# Copyright: (c) 2026, OpenISB contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The page of a drill's report in a real browser, on screens of several widths and on paper.

The page runs no script and may not be asked by one, so a page around it, from the same server, measures it in a frame.
"""

from __future__ import annotations

import functools
import html
import http.server
import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from . import drill_records as drills
from .report_site import Site

pytestmark = pytest.mark.slow

GOOD, BAD, LARGE = (f"idr-20261128T210000Z-00000{number}" for number in (1, 2, 4))
WIDTHS = (360, 400, 768, 901, 1280)
MEASURE = """<!DOCTYPE html><meta charset="utf-8"><title>measure</title><pre id="out"></pre>
<iframe src="PAGE" style="width:WIDTHpx;height:900px;border:0"></iframe>
<script>
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument, root = page.documentElement;
  page.querySelectorAll("details").forEach((element) => { element.open = true; });
  const wide = [...page.body.querySelectorAll("*")].filter((element) => {
    const box = element.getBoundingClientRect();
    return box.width && (box.right > root.clientWidth + 1 || box.left < -1);
  }).map((element) => element.tagName + "." + element.getAttribute("class") + ": " + element.textContent.slice(0, 40));
  const cut = [...page.body.querySelectorAll("*")].filter((element) => element.clientWidth &&
    element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline"
  ).map((element) => element.tagName + "." + element.getAttribute("class") + ": " + element.textContent.slice(0, 40));
  const fetched = frame.contentWindow.performance.getEntriesByType("resource").map((entry) => entry.name);
  document.getElementById("out").textContent = JSON.stringify(
    {title: page.title, width: root.scrollWidth, height: root.scrollHeight, wide, cut, fetched});
});
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and remembers what was asked for."""

    def log_message(self, format: str, *arguments: Any) -> None:  # noqa: A002 (named so by its base)
        self.server.asked.append(self.path)  # type: ignore[attr-defined]


class Browser:
    """Headless Chromium, with a server of this machine for its pages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        handler = functools.partial(Handler, directory=str(folder))
        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def run(self, *arguments: str) -> str:
        """Run Chromium once, with a profile of its own, and return what it printed."""
        program = shutil.which("chromium")
        assert program, "there is no chromium: install the Debian packages of scripts/debian-packages.txt"
        profile = self.folder / "profile"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        options += ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"]
        done = subprocess.run(
            [program, *options, f"--user-data-dir={profile}", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def measure(self, page: str, width: int) -> dict[str, Any]:
        """What the page in a frame of that width measures, and what it has asked for."""
        (self.folder / "measure.html").write_text(MEASURE.replace("PAGE", page).replace("WIDTH", str(width)))
        address = f"http://127.0.0.1:{self.server.server_port}/measure.html"
        self.server.asked.clear()  # type: ignore[attr-defined]
        printed = self.run("--window-size=1600,1000", "--virtual-time-budget=5000", "--dump-dom", address)
        found = re.search(r'<pre id="out">(.*?)</pre>', printed, re.DOTALL)
        assert found and found[1], printed
        asked = [path for path in self.server.asked if path != "/favicon.ico"]  # type: ignore[attr-defined]
        return {**json.loads(html.unescape(found[1])), "asked": asked}

    def pdf(self, page: Path) -> str:
        """The text of the page as it is printed; pages end in form feeds."""
        path = self.folder / "page.pdf"
        self.run(f"--print-to-pdf={path}", "--no-pdf-header-footer", page.as_uri())
        return subprocess.run(["pdftotext", "-layout", path, "-"], check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory, project_root: Path) -> Path:
    """The folder with the pages of a good, a bad and a large drill."""
    site = Site(tmp_path_factory.mktemp("site"), project_root)
    for drill, events in ((GOOD, drills.good()), (BAD, drills.bad()), (LARGE, drills.large())):
        site.journalize(drill, events)
    done = site.report([GOOD, BAD, LARGE])
    assert done.returncode == 0, done.stdout + done.stderr
    return site.reports


@pytest.fixture
def browser(tmp_path: Path, reports: Path) -> Iterator[Browser]:
    """A browser that finds the pages on its server."""
    for path in reports.glob("*.html"):
        shutil.copy(path, tmp_path)
    made = Browser(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("drill", [GOOD, BAD, LARGE])
def test_nothing_is_fetched_and_nothing_overflows(browser: Browser, drill: str, width: int) -> None:
    found = browser.measure(f"{drill}.html", width)
    assert found["title"].endswith(f"recovery drill {drill}")
    assert (found["asked"], found["fetched"]) == (["/measure.html", f"/{drill}.html"], [])
    assert (found["width"], found["wide"], found["cut"]) == (width, [], [])


def test_what_would_overflow_or_be_fetched_is_seen(browser: Browser) -> None:
    """The measure itself: with something too wide and a picture in it, the page is not found to be good."""
    text = (browser.folder / f"{GOOD}.html").read_text()
    text = re.sub(r"<meta http-equiv=[^>]*>", "", text)
    wide = '<div style="width:2000px">wide</div><img src="/picture.png" alt="">'
    (browser.folder / "changed.html").write_text(text.replace("<footer>", wide + "<footer>"))
    found = browser.measure("changed.html", 1280)
    assert found["width"] > 1280 and any("wide" in text for text in found["wide"])
    assert "/picture.png" in found["asked"] and found["fetched"]


@pytest.mark.parametrize("drill", [GOOD, BAD, LARGE])
def test_paper(browser: Browser, reports: Path, drill: str) -> None:
    """All is on paper: the verdict first, what was closed on the screen, and which page of how many it is."""
    text = browser.pdf(browser.folder / f"{drill}.html")
    report = json.loads((reports / f"{drill}.json").read_text())
    pages = text.split("\f")[:-1]
    assert report["verdict"].capitalize() in pages[0][:800]
    for number, page in enumerate(pages, 1):
        assert re.search(rf"{drill}\s+{number}\s*/\s*{len(pages)}\s*$", page), page[-200:]
    squeezed = re.sub(r"\s", "", text)
    checks = [check for server in report["servers"].values() for check in server["checks"]]
    digests = [volume["digest"] for server in report["servers"].values() for volume in server["volumes"]]
    lines = [line for check in checks for line in check["output"].splitlines()]
    wanted = [*report["problems"], *lines, *digests, report["journal_head"]]
    assert [item for item in wanted if re.sub(r"\s", "", item) not in squeezed] == []
    assert "Signature" in pages[-1]
