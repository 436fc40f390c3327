"""The commands of docs/operate/state.md and reports.md, as they stand there.

Covers: every `sh` block of these pages, on a state directory with three runs, without a site.
Does not cover: install.md (test_install), README (its commands are those of other tests).
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.archive_site import check_same, empty_state, make_home
from tests.system.site_service import FOREBAY

PAGES = Path(__file__).parents[2] / "docs/operate"
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.M | re.S)
BLOCK_S = 120


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    make_home(folder / "home")
    return folder


def blocks(page):
    return BLOCK.findall((PAGES / page).read_text())


def run(text, home):
    path = f"{FOREBAY.parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={**os.environ, "PATH": path, "FOREBAY_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=BLOCK_S,
        check=False,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)


def test_runs_are_archived_and_imported_as_the_page_says(here):
    def without_site(text):
        """Put in what the page's configuration says."""
        text = text.replace(" 17 ", " 2 ").replace("state prune", "state prune --keep-days 400")
        return re.sub("(forebay state [a-z]+)", rf"\1 --url file://{here}/archive", text)

    archive, lost = map(without_site, blocks("state.md"))
    run(archive, here / "home")
    run(lost, here / "new")
    check_same(empty_state(here / "home"), empty_state(here / "new"))


def test_reports_and_screens_are_made_as_the_page_says(here):
    report, screen = blocks("reports.md")
    page = here / "run.html"
    run(report.replace("/tmp/run.html", str(page)).replace(" 12 ", " 3 "), here / "home")
    assert page.stat().st_size
    run(screen, here / "home")
