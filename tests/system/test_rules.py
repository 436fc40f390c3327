"""Rules fire when they are to and not before: promtool runs them over made-up series."""

import subprocess

import pytest
import yaml

from cluster.dashboards.alerts import ALERTS
from cluster.dashboards.files import write_prometheus
from shards.errors import ForebayError
from tests.support.prometheus import programs

pytestmark = pytest.mark.bacula

BY_NAME = {alert.name: alert for alert in ALERTS}
DATASET = {"dataset": "d"}


def series(name, values, **labels):
    inside = ",".join(f'{key}="{value}"' for key, value in labels.items())
    return {"series": f"ray_forebay_{name}{{{inside}}}", "values": values}


# (rule, series by the minute, when it does not fire, when it does, labels of what fires)
CASES = [
    (
        "ForebayBackupTooOld",
        [series("last_good_backup_timestamp_seconds", "60x3000", dataset="d")],
        *("35h", "37h", DATASET),
    ),
    (
        "ForebayNeverBackedUp",
        [series("last_good_backup_timestamp_seconds", "0x3000", dataset="d")],
        *("23h", "25h", DATASET),
    ),
    (
        "ForebayScanStalled",
        [
            series("run_scanning", "1x100", dataset="d"),
            series("leases", "0+1x40 40x60", dataset="d", state="done"),
        ],
        *("65m", "75m", DATASET),
    ),
    (  # there is no walker, and never was
        "ForebayScanStalled",
        [
            series("run_scanning", "1x100", dataset="d"),
            series("leases", "0x100", dataset="d", state="done"),
        ],
        *("19m", "25m", DATASET),
    ),
    (
        "ForebaySnapshotKept",
        [
            series("snapshots", "1x300", dataset="d"),
            series("run_open", "1x60 0x240", dataset="d"),
        ],
        *("1h50m", "3h", DATASET),
    ),
    (
        "ForebayWarningsGrew",
        [series("last_run_warnings", "10x60 500x60", dataset="d")],
        *("59m", "62m", DATASET),
    ),
    (  # in the run of another coordinator, which begins with what the ledger says
        "ForebayChangeGap",
        [
            series("change_gaps_total", "7x60 _x60", dataset="d", WorkerId="a"),
            series("change_gaps_total", "_x60 8x60", dataset="d", WorkerId="b"),
        ],
        *("59m", "70m", DATASET),
    ),
    (
        "ForebayStreamsBreak",
        [series("stream_broken_total", "0x60 1x60", dataset="d", shard="3", WorkerId="a")],
        *("59m", "65m", {**DATASET, "shard": "3"}),
    ),
    (
        "ForebayStateFilling",
        [series("state_size_bytes", "100x100"), series("state_free_bytes", "20x30 9x70")],
        *("35m", "45m", {}),
    ),
    (
        "ForebayLedgerDiskFilling",
        [series("ledger_size_bytes", "100x100"), series("ledger_free_bytes", "9x30 4x70")],
        *("35m", "45m", {}),
    ),
    (
        "ForebayServiceDown",
        [series("metrics_sample_seconds", "0.1x30 _x70", actor="coordinator")],
        *("35m", "60m", {"actor": "coordinator"}),
    ),
]


@pytest.mark.parametrize(("name", "given", "quiet", "loud", "labels"), CASES)
def test_a_rule_fires_in_time(tmp_path, name, given, quiet, loud, labels):
    try:
        _, promtool = programs()
    except (ForebayError, OSError) as error:
        pytest.skip(f"Prometheus cannot be had: {error}")
    _, rules = write_prometheus(tmp_path)
    fired = {"exp_labels": {**labels, "severity": BY_NAME[name].severity}}
    # The annotations have values in them; they are left out, so that only labels are compared.
    groups = yaml.safe_load(rules.read_text())
    for rule in groups["groups"][0]["rules"]:
        del rule["annotations"]
    rules.write_text(yaml.safe_dump(groups))
    test = {
        "rule_files": [str(rules)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": given,
                "alert_rule_test": [
                    {"eval_time": quiet, "alertname": name, "exp_alerts": []},
                    {"eval_time": loud, "alertname": name, "exp_alerts": [fired]},
                ],
            }
        ],
    }
    file = tmp_path / "test.yml"
    file.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool, "test", "rules", file], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
