"""docs/operate/install.md, followed word by word.

Covers: every `sh` and `toml` block of the page, in order, on a site of three movers; between them
files change, and the Director's own Schedule starts an incremental; what Prometheus gets by the
scrape configuration that was written.
Does not cover: what the `console` blocks do by hand: packages, Ray's own start, systemd.
"""

import json
import os
import re
import subprocess
import urllib.request
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml

from tests.support.compare import compare_trees
from tests.system.site_service import BIG_BYTES, FOREBAY, SHARDS, SiteService, await_true

pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(600)]

PAGE = Path(__file__).parents[2] / "docs/operate/install.md"
BLOCK = re.compile(r"^```(sh|toml|console)\n(.*?)^```$", re.M | re.S)
BLOCK_S = 300
MOVERS = ["mover1", "mover2", "mover3"]
AHEAD_S = 5  # before its minute the Director is to have read the Schedule
ACTOR = re.compile(r'^ray_forebay_process_open_fds{.*\bactor="([^"]+)"', re.M)


@pytest.fixture(scope="module")
def site():
    one = SiteService(movers=MOVERS, with_jobs=False)
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
        f"prometheus {etc}/prometheus": (
            f"prometheus {etc}/prometheus --ray-temp-dir {site.base}/ray"
        ),
    }
    site.root.rename(scratch / "home" / "tree")
    site.root = scratch / "home" / "tree"
    site.fill()
    (etc / "catalog.password").touch(0o600)
    (etc / "catalog.password").write_text("unused")
    site.config = etc / "forebay.toml"
    set_schedule(site, f"Level=Full daily at {datetime.now() - timedelta(hours=12):%H:%M}")
    before = {"forebay backup home\n": lambda: change(site.root, 1)}
    after = {
        "forebay bacula config": lambda: site.lab.include(site.base / "bacula" / "director.conf"),
        "forebay restore": lambda: check_tree(scratch, scratch / "restored"),
        "forebay verify": lambda: (change(site.root, 2), schedule_soon(site)),
    }
    blocks = BLOCK.findall(PAGE.read_text())
    assert [kind for kind, _ in blocks].count("sh") >= 8
    for kind, text in blocks:
        for there, place in here.items():
            text = text.replace(there, place)
        if kind == "toml":
            site.config.write_text(text)
        elif kind == "sh":
            steps(before, text)
            run(site, text.replace("head -c 32 /dev/urandom | od -An -vtx1", f"echo {site.token}"))
            steps(after, text)
    assert not before
    assert not after
    assert any((etc / "grafana").rglob("*.json"))
    await_true(lambda: actors_scraped(etc) >= {f"bridge-{mover}" for mover in MOVERS})
    check_scheduled(site)
    site.forebay("restore", "latest", "--to", scratch / "again")
    check_tree(scratch, scratch / "again")
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


def steps(known, text):
    """Do what goes with the commands of a block, once."""
    for command in [command for command in known if command in text]:
        known.pop(command)()


def change(tree, number):
    """A file is written again, one is new, one is removed."""
    (tree / f"big{number}").write_bytes(os.urandom(BIG_BYTES))
    (tree / f"new{number}").write_text("new")
    (tree / "d0" / f"f{7 * number}").unlink()


def check_tree(scratch, place):
    assert not compare_trees(scratch / "home", f"{place}{scratch}/home")


def set_schedule(site, directive):
    """Let the Director have the Schedule that the page names."""
    text = f'Schedule {{\n  Name = "WeeklyCycle"\n  Run = {directive}\n}}\n'
    site.lab.set_resources("schedule", text)


def schedule_soon(site):
    """Let the Schedule start incrementals when the next minute begins."""
    minute = (datetime.now() + timedelta(seconds=60 + AHEAD_S)).minute
    set_schedule(site, f"Level=Incremental hourly at 0:{minute:02}")


def check_scheduled(site):
    """The Schedule's jobs made the third run, and sent what was changed; so did the second's."""
    await_true(lambda: len(site.runs()) == 3)
    site.closed()
    scheduled, by_hand, full = site.runs()
    assert [each.run.level for each in site.runs()] == ["incremental", "incremental", "full"]
    assert {each.run.state.value for each in site.runs()} == {"complete"}
    for record in (scheduled, by_hand):
        sent = [job.summary for job in record.saved_jobs]
        assert (sum(each.files for each in sent), sum(each.deleted for each in sent)) == (2, 1)
    for job in (*scheduled.saved_jobs, *full.saved_jobs):
        assert site.log(job.jobid).count("hook") >= 2, "the RunScripts of the rendered jobs ran"
    assert len(scheduled.saved_jobs) == len(full.saved_jobs) == SHARDS
    for job in scheduled.saved_jobs:  # of one that was started by hand it is the time of that
        assert re.search(r"Scheduled time: .*:00\n", site.log(job.jobid)), site.log(job.jobid)


def actors_scraped(etc):
    """Ask Ray as a Prometheus with the written scrape configuration does."""
    written = yaml.safe_load((etc / "prometheus" / "prometheus.yml").read_text())
    (path,) = written["scrape_configs"][0]["file_sd_configs"][0]["files"]
    found = set()
    for group in json.loads(Path(path).read_text()):
        for target in group["targets"]:
            with urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
                found |= set(ACTOR.findall(answer.read().decode()))
    return found
