"""A real Prometheus scrapes real backups: every panel and every rule has data."""

import json
import os
import re
import subprocess
import time

import pytest
import ray
import yaml

from cluster.dashboards.alerts import ALERTS
from cluster.dashboards.content import DASHBOARDS
from cluster.dashboards.files import DISCOVERY, write_prometheus
from filesystems.lustre.changelog import Cursor
from filesystems.lustre.log import ChangeLog
from filesystems.lustre.settings import LustreChangelogs
from shards.errors import ForebayError
from shards.ledger_schema import RunState
from shards.metric_catalogue import METRICS
from tests.support.prometheus import programs, running_prometheus
from tests.system.site import running_site

pytestmark = pytest.mark.bacula

FILES, SIZE = 400, 5_000
SHARDS = 2
SAMPLE_MAX_S = 0.25  # of processor time, on a busy machine; a few milliseconds are usual
# These have no data while all is well, and that is what they are to say.
WITHOUT_DATA = {
    "ForebayServiceDown": "the coordinator is there",
    "ForebayActorPending": "Ray counts such actors only while there are some",
}
NEEDS_A_READER = ("changelog_queued_events", "changelog_unseen_processes", "change_position")


def substituted(expression):
    """Put in what Grafana would; subqueries by the second, for the test takes no minutes."""
    expression = expression.replace("$__rate_interval", "20s").replace("$dataset", ".*")
    return re.sub(r":\d+m\]", ":1s]", expression)


def panels():
    for dashboard in DASHBOARDS:
        for panel in dashboard.panels:
            for query in panel.queries:
                yield f"{dashboard.uid}: {panel.title}: {query.legend}", query.expression


@pytest.fixture(scope="module")
def tools():
    try:
        return programs()
    except (ForebayError, OSError) as error:
        pytest.skip(f"Prometheus cannot be had: {error}")


class Live:
    """What was backed up, and the Prometheus that saw it."""

    def __init__(self, prometheus, since, records, has_reader):
        self.prometheus, self.since = prometheus, since
        self.records, self.has_reader = records, has_reader

    def wait_data(self, expression):
        return self.prometheus.wait(
            lambda: self.prometheus.has_data(substituted(expression), self.since)
        )

    def wait_values(self, expression, wanted):
        return self.prometheus.wait(lambda: self.prometheus.values(expression) == wanted)


def make_tree(tree):
    for number in range(FILES):
        folder = tree / f"d{number % 10}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"f{number}").write_bytes(b"x" * SIZE)


def scrape_configuration(folder):
    """Write what `forebay dashboards prometheus` writes, for this Ray, and faster."""
    (node,) = ray.nodes()
    target = f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}"
    listed = [{"labels": {"job": "ray"}, "targets": [target]}]
    (folder / DISCOVERY).write_text(json.dumps(listed))  # Ray's dashboard would write it
    configuration, _ = write_prometheus(folder, folder)
    values = yaml.safe_load(configuration.read_text())
    values["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    configuration.write_text(yaml.safe_dump(values))
    return configuration


def set_up_changelogs(site):
    """Leave what a dataset on Lustre leaves; its changelogs themselves are nobody's."""
    folder = site.settings.state.changes("on-lustre")
    folder.mkdir(parents=True)
    settings = LustreChangelogs(b"/lustre/a", b"/lustre", (("scratch-MDT0000", "cl1"),))
    settings.save(folder)
    with ChangeLog(folder, settings.identity()) as log:
        log.keep("scratch-MDT0000", Cursor(index=50, cleared=30, is_begun=True))


@pytest.fixture(scope="module")
def live(tools, tmp_path_factory):
    has_reader = os.geteuid() == 0
    folder = tmp_path_factory.mktemp("prometheus")
    since = time.time()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_metrics_report_interval_ms", "1000")
        with running_site(tmp_path_factory.mktemp("home")) as site:
            set_up_changelogs(site)
            source = "fanotify" if has_reader else "scan"
            with (
                running_prometheus(scrape_configuration(folder), folder) as prometheus,
                site.place(source, "d", tmp_path_factory.mktemp("source")) as (place, reading),
            ):
                make_tree(place / "tree")
                with reading():
                    records = [
                        site.backup(place / "tree", "d", SHARDS, level)
                        for level in ("full", "incremental")
                    ]
                    yield Live(prometheus, since, records, has_reader)


def test_promtool_accepts_configuration_and_rules(tools, tmp_path):
    configuration, rules = write_prometheus(tmp_path)
    for what, path in (("config", configuration), ("rules", rules)):
        done = subprocess.run(
            [tools[1], "check", what, path], capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, done.stderr
    assert f"{len(ALERTS)} rules found" in done.stdout


def test_prometheus_sees_what_the_ledger_says(live):
    full, incremental = live.records
    assert (full.run.state, incremental.run.state) == (RunState.COMPLETE, RunState.COMPLETE)
    scanned = full.scan.inodes + incremental.scan.inodes
    assert full.scan.inodes > FILES
    live.wait_values('sum(ray_forebay_scan_inodes_total{dataset="d",target="0"})', [scanned])
    live.wait_values('sum(ray_forebay_stream_bytes_total{dataset="d"})', [FILES * SIZE])
    receipts = sum(
        job.summary.files + job.summary.directories + job.summary.deleted
        for record in live.records
        for job in record.jobs
    )
    live.wait_values("sum(ray_forebay_stream_acknowledged_total)", [receipts])
    live.wait_values("sum(ray_forebay_stream_completed_total)", [2.0 * SHARDS])
    live.wait_values('max(ray_forebay_runs{state="complete"})', [2.0])
    live.wait_values(
        "max(ray_forebay_last_run_files)",
        [float(sum(job.summary.files for job in incremental.jobs))],
    )
    started = incremental.run.started
    live.wait_values("max(ray_forebay_last_good_backup_timestamp_seconds)", [started])


def test_counters_are_there_before_they_count(live):
    live.wait_values("sum(ray_forebay_stream_broken_total)", [0.0])
    live.wait_values("sum(ray_forebay_metrics_errors_total)", [0.0])


def test_every_metric_of_the_catalogue_is_there(live):
    for name in METRICS:
        if live.has_reader or not any(word in name for word in NEEDS_A_READER):
            live.wait_data(f'{{__name__=~"ray_{name}(_bucket)?"}}')


@pytest.mark.parametrize(("panel", "expression"), list(panels()))
def test_a_panel_has_data(live, panel, expression):
    if not live.has_reader and any(word in expression for word in NEEDS_A_READER):
        pytest.skip("only root can mark a filesystem and have a change reader")
    live.wait_data(expression)


@pytest.mark.parametrize("alert", ALERTS, ids=lambda alert: alert.name)
def test_a_rule_has_data_without_its_threshold(live, alert):
    if alert.name in WITHOUT_DATA:
        assert live.prometheus.values(substituted(alert.value)) == [], WITHOUT_DATA[alert.name]
        return
    if not live.has_reader and any(word in alert.value for word in NEEDS_A_READER):
        pytest.skip("only root can mark a filesystem and have a change reader")
    live.wait_data(alert.value)


def test_prometheus_evaluates_the_rules_and_none_is_broken(live):
    def evaluated():
        (group,) = live.prometheus.ask("rules")["groups"]
        return all(rule["health"] == "ok" for rule in group["rules"]) and group["rules"]

    assert len(live.prometheus.wait(evaluated)) == len(ALERTS)


def test_sampling_costs_next_to_nothing(live):
    values = live.prometheus.values("ray_forebay_metrics_sample_seconds")
    assert len(values) == 3  # coordinator, bridge, walker
    assert max(values) < SAMPLE_MAX_S, values
