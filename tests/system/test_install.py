"""docs/operate/install.md, followed word by word.

Covers: every `sh` and `toml` block of the page, in order, on a site of three movers.
Does not cover: what its `console` blocks do by hand: packages, Ray's own start, systemd.
"""

import re
import subprocess
from pathlib import Path

import pytest

from tests.support.compare import compare_trees
from tests.system.site_service import FOREBAY, SHARDS, SiteService

pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs/operate/install.md"
BLOCK = re.compile(r"^```(sh|toml|console)\n(.*?)^```$", re.M | re.S)
BLOCK_S = 300
EDITED_BY_HAND = "forebay bacula config"


@pytest.fixture(scope="module")
def site():
    one = SiteService(movers=["mover1", "mover2", "mover3"], with_jobs=False)
    try:
        yield one
    finally:
        one.close()


def test_the_page_leads_to_backups_that_restore(site):
    etc, scratch = site.base / "etc", site.base / "scratch"
    for folder in (etc, site.base / "bacula", scratch / "home", site.base / "bin"):
        folder.mkdir(parents=True)
    here = {
        "/etc/forebay": str(etc),
        "/etc/bacula/forebay": str(site.base / "bacula"),
        "/etc/bacula/bconsole.conf": f"{site.lab.lab.base}/conf/bconsole.conf",
        "/usr/sbin/bconsole": str(site.lab.bconsole),
        "/scratch": str(scratch),
        "/var/lib/forebay": str(site.base / "ledger"),
        "10.0.0.11:6379": site.nodes.address,
        "http://10.0.0.11:8265": site.nodes.dashboard,
        "postgresql://forebay@db.example.org/bacula": str(site.lab.lab.catalog),
        # The lab's Director has a pool and a restore job of the usual names.
        'messages = "Standard"': (
            'messages = "forebay"\npool = "site"\nrestore_job = "site-restore"'
        ),
        'state = "': f'runtime = "{site.base}/site/run-{{mover}}"\nstate = "',
    }
    site.root.rename(scratch / "home" / "tree")
    site.root = scratch / "home" / "tree"
    site.fill()
    (etc / "catalog.password").touch(0o600)
    (etc / "catalog.password").write_text("unused")
    site.config = etc / "forebay.toml"
    blocks = BLOCK.findall(PAGE.read_text())
    assert [kind for kind, _ in blocks].count("sh") >= 8
    for kind, text in blocks:
        for there, place in here.items():
            text = text.replace(there, place)
        if kind == "toml":
            site.config.write_text(text)
        elif kind == "sh":
            run(site, text.replace("head -c 32 /dev/urandom | od -An -vtx1", f"echo {site.token}"))
            if EDITED_BY_HAND in text:
                site.lab.include(site.base / "bacula" / "director.conf")
    assert [record.run.level for record in site.runs()] == ["incremental", "full"]
    assert {record.run.state.value for record in site.runs()} == {"complete"}
    assert len(site.runs()[1].saved_jobs) == SHARDS
    assert not compare_trees(scratch / "home", f"{scratch}/restored{scratch}/home")
    hooks = [row for row in site.log(site.runs()[1].jobs[0].jobid).splitlines() if "hook" in row]
    assert len(hooks) >= 2, "the RunScripts of the rendered jobs ran"
    assert any((etc / "grafana").rglob("*.json"))
    assert any((etc / "prometheus").rglob("*.yml"))
    site.forebay("stop")


def run(site, text):
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", text],
        env={**site.environment, "PATH": f"{FOREBAY.parent}:{site.environment['PATH']}"},
        capture_output=True,
        text=True,
        timeout=BLOCK_S,
        check=False,
    )
    assert done.returncode == 0, (text, done.stdout, done.stderr)
