"""Alert rules for Prometheus.

Covers: each rule with its threshold, how long it must hold, and where its runbook is.
Does not cover: who is told (Alertmanager), the files (files).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

RUNBOOKS = "docs/operate/alerts.md"
DAY_S = 86_400


@dataclass(frozen=True, slots=True)
class Alert:
    """One rule: it fires when the value is beyond the threshold for so long."""

    name: str
    value: str
    threshold: str
    summary: str
    held: str = "10m"
    severity: str = "warning"

    @property
    def expression(self) -> str:
        return f"({self.value}) {self.threshold}"

    @property
    def runbook(self) -> str:
        return f"{RUNBOOKS}#{self.name.lower()}"


def _value(name: str, by: str = "dataset") -> str:
    return f"max by ({by}) (ray_forebay_{name})"


def _more(name: str, during: str, by: str = "dataset") -> str:
    return f"sum by ({by}) (increase(ray_forebay_{name}[{during}]))"


def _ledger_more(name: str, during: str, by: str = "dataset") -> str:
    # These go on over the coordinator's life, in a new series each time.
    return f"increase((max by ({by}) (ray_forebay_{name}))[{during}])"


ALERTS = (
    Alert(
        "ForebayBackupTooOld",
        f"time() - ({_value('last_good_backup_timestamp_seconds')} > 0)",
        f"> {DAY_S * 3 // 2}",
        "the last good backup of {{ $labels.dataset }} began {{ $value | humanizeDuration }} ago",
        severity="critical",
    ),
    Alert(
        "ForebayNeverBackedUp",
        _value("last_good_backup_timestamp_seconds"),
        "== 0",
        "{{ $labels.dataset }} has no good backup at all",
        held="1d",
        severity="critical",
    ),
    Alert(
        "ForebayRunNotGood",
        _value("last_run_good"),
        "== 0",
        "the last run of {{ $labels.dataset }} is incomplete or has failed",
    ),
    Alert(
        "ForebayWarningsGrew",
        f"{_value('last_run_warnings')} - max by (dataset) (min_over_time("
        "ray_forebay_last_run_warnings[2d]))",
        "> 100",
        "the last run of {{ $labels.dataset }} has {{ $value }} more warnings than one before it",
        held="0s",
    ),
    Alert(
        "ForebayRunOpenTooLong",
        _value("run_open_seconds"),
        f"> {DAY_S}",
        "a run of {{ $labels.dataset }} is open for {{ $value | humanizeDuration }}",
    ),
    Alert(
        "ForebayScanErrors",
        _more("scan_errors_total", "1h"),
        "> 0",
        "the scan of {{ $labels.dataset }} could not look at {{ $value }} names or directories",
        held="0s",
    ),
    Alert(
        "ForebayScanStalled",
        f"{_value('run_scanning')} * on (dataset) group_left () (sum by (dataset)"
        ' (changes(ray_forebay_leases{state="done"}[10m])) == bool 0)',
        "> 0",
        "the scan of {{ $labels.dataset }} goes on and has committed nothing for 30 minutes",
        held="20m",
        severity="critical",
    ),
    Alert(
        "ForebayLeaseStuck",
        _value("scan_lease_age_seconds", "dataset, target"),
        "> 900",
        "a walker of {{ $labels.dataset }}, target {{ $labels.target }}, has been in one lease for"
        " {{ $value | humanizeDuration }}",
        held="0s",
    ),
    Alert(
        "ForebayActorsRestart",
        _ledger_more("actor_starts_total", "1h:1m", "role"),
        "> 3",
        "{{ $labels.role }} was started {{ $value }} times within an hour",
        held="0s",
    ),
    Alert(
        "ForebayStreamStalled",
        _value("stream_idle_seconds", "dataset, shard"),
        "> 3600",
        "shard {{ $labels.shard }} of {{ $labels.dataset }} has had no receipt for"
        " {{ $value | humanizeDuration }}",
        held="0s",
    ),
    Alert(
        "ForebayStreamsBreak",
        _more("stream_broken_total", "30m", "dataset, shard"),
        "> 0",
        "the stream of shard {{ $labels.shard }} of {{ $labels.dataset }} broke; so did its job",
        held="0s",
    ),
    Alert(
        "ForebayJobsRefused",
        "sum(increase(ray_forebay_joins_refused_total[1h]))",
        "> 0",
        "{{ $value }} jobs got no stream within an hour",
        held="0s",
    ),
    Alert(
        "ForebayChangeReaderDown",
        _value("changelog_up", "dataset, source"),
        "== 0",
        "nobody reads the changes of {{ $labels.dataset }} ({{ $labels.source }})",
        held="15m",
    ),
    Alert(
        "ForebayChangeGap",
        _ledger_more("change_gaps_total", "1d:5m"),
        "> 0",
        "{{ $value }} incrementals of {{ $labels.dataset }} had to look everywhere",
        held="0s",
        severity="info",
    ),
    Alert(
        "ForebayChangelogBehind",
        _value("changelog_queued_events"),
        "> 100000",
        "the change reader of {{ $labels.dataset }} has {{ $value }} events to take in",
    ),
    Alert(
        "ForebayChangelogNotRead",
        f"time() - {_value('changelog_read_timestamp_seconds')}",
        f"> {DAY_S * 2}",
        "the changelogs of {{ $labels.dataset }} were last read {{ $value | humanizeDuration }}"
        " ago; their records fill the metadata targets",
    ),
    Alert(
        "ForebayChangelogNotCleared",
        _value("changelog_uncleared_records", "dataset, target"),
        "> 50000000",
        "{{ $value }} changelog records of {{ $labels.target }} are not cleared",
    ),
    Alert(
        "ForebayPositionTooOld",
        f"time() - {_value('change_position_timestamp_seconds', 'dataset, source')}",
        f"> {DAY_S * 7}",
        "the position of {{ $labels.dataset }}'s changes is {{ $value | humanizeDuration }} old",
    ),
    Alert(
        "ForebayStateFilling",
        "max(ray_forebay_state_free_bytes) / max(ray_forebay_state_size_bytes)",
        "< 0.1",
        "{{ $value | humanizePercentage }} of the state directory's filesystem is free",
    ),
    Alert(
        "ForebayStateFull",
        "max(ray_forebay_state_free_bytes) / max(ray_forebay_state_size_bytes)",
        "< 0.03",
        "{{ $value | humanizePercentage }} of the state directory's filesystem is free: the next"
        " run may fail",
        held="1m",
        severity="critical",
    ),
    Alert(
        "ForebayStateInodesLow",
        "max(ray_forebay_state_free_inodes > 0)",
        "< 100000",
        "the state directory's filesystem has {{ $value }} free inodes",
    ),
    Alert(
        "ForebayLedgerDiskFilling",
        "max(ray_forebay_ledger_free_bytes) / max(ray_forebay_ledger_size_bytes)",
        "< 0.05",
        "{{ $value | humanizePercentage }} of the filesystem with the run ledger is free: when it"
        " is full no run goes on",
        severity="critical",
    ),
    Alert(
        "ForebayDescriptorsLow",
        "max by (actor) (ray_forebay_process_open_fds / ray_forebay_process_max_fds)",
        "> 0.8",
        "{{ $labels.actor }} uses {{ $value | humanizePercentage }} of its descriptors",
    ),
    Alert(
        "ForebayMemoryHigh",
        _value("process_resident_bytes", "actor"),
        "> 4e9",
        "{{ $labels.actor }} has {{ $value | humanize1024 }}B of memory",
    ),
    Alert(
        "ForebaySnapshotKept",
        f"{_value('snapshots')} * on (dataset) group_left () ({_value('run_open')} == bool 0)",
        "> 0",
        "{{ $value }} snapshots of {{ $labels.dataset }} are kept though no run is open",
        held="1h",
    ),
    Alert(
        "ForebayMetricsIncomplete",
        _more("metrics_errors_total", "30m", "actor"),
        "> 0",
        "some metrics of {{ $labels.actor }} could not be sampled",
        held="0s",
    ),
    Alert(
        "ForebayActorPending",
        'sum by (Name) (ray_actors{State="PENDING_CREATION"})',
        "> 0",
        "Ray cannot place {{ $labels.Name }}: no live node has the label it asks for",
    ),
    Alert(
        "ForebayServiceDown",
        'absent(ray_forebay_metrics_sample_seconds{actor="coordinator"})',
        "> 0",
        "there is no coordinator; jobs of Bacula's schedule fail",
        held="15m",
        severity="critical",
    ),
)


def rules() -> dict[str, Any]:
    """Return the rules as Prometheus reads them from YAML."""
    return {
        "groups": [
            {
                "name": "forebay",
                "rules": [
                    {
                        "alert": alert.name,
                        "expr": alert.expression,
                        "for": alert.held,
                        "labels": {"severity": alert.severity},
                        "annotations": {"summary": alert.summary, "runbook": alert.runbook},
                    }
                    for alert in ALERTS
                ],
            }
        ]
    }
