"""What the dashboards show.

Covers: five dashboards over the metrics of shards.metric_catalogue.
Does not cover: their JSON (panels), alerts (alerts).

A restarted actor has another WorkerId, and for a while both are there: values of the ledger are
taken as the largest by dataset, counters as sums of rates.
"""

from __future__ import annotations

from cluster.dashboards.panels import Dashboard, Panel, Query, one

_OURS = '{dataset=~"$dataset"}'


def _rate(name: str, by: str = "dataset") -> str:
    selector = _OURS if "dataset" in by else ""
    return f"sum by ({by}) (rate(ray_forebay_{name}{selector}[$__rate_interval]))"


def _value(name: str, by: str = "dataset") -> str:
    selector = _OURS if "dataset" in by else ""
    return f"max by ({by}) (ray_forebay_{name}{selector})"


def _age(name: str, by: str = "dataset") -> str:
    return f"time() - ({_value(name, by)} > 0)"


def _quantiles(name: str, by: str = "") -> tuple[Query, ...]:
    labels = f", {by}" if by else ""
    legend = f" {{{{{by}}}}}" if by else ""
    rate = f"sum by (le{labels}) (rate(ray_forebay_{name}_bucket[$__rate_interval]))"
    return tuple(
        Query(f"histogram_quantile({quantile}, {rate})", f"{quantile:.0%}{legend}")
        for quantile in (0.5, 0.95)
    )


_DATASET, _TARGET, _SHARD = "{{dataset}}", "{{dataset}} {{target}}", "{{dataset}} {{shard}}"
_BY_TARGET, _BY_SHARD = "dataset, target", "dataset, shard"

OVERVIEW = Dashboard(
    "forebay-overview",
    "Forebay: overview",
    "Are the backups good, and what runs now.",
    (
        Panel(
            "Last good backup",
            one(_age("last_good_backup_timestamp_seconds"), _DATASET),
            *("s", "Since when the newest run that saved everything began.", "stat", 6, 5),
        ),
        Panel(
            "Without a good backup",
            one(f"sum({_value('last_good_backup_timestamp_seconds')} == bool 0)", "datasets"),
            *("short", "Datasets that no run has ever saved whole.", "stat", 4, 5),
        ),
        Panel(
            "Last run",
            one(_value("last_run_good"), _DATASET),
            *("bool_yes_no", "Whether the last run that has ended saved everything.", "stat", 6, 5),
            red_below=1,
        ),
        Panel(
            "Open runs", one(f"sum({_value('run_open')})", "runs"), kind="stat", columns=4, rows=5
        ),
        Panel(
            "Live streams",
            one(f"sum({_value('stream_live', _BY_SHARD)})", "streams"),
            *("short", "Jobs that are being fed now.", "stat", 4, 5),
        ),
        Panel("Scanned", one(_rate("scan_inodes_total"), _DATASET), "ops", "Entries a second."),
        Panel("Saved", one(_rate("stream_bytes_total"), _DATASET), "Bps", "File data a second."),
        Panel("Entries saved", one(_rate("stream_acknowledged_total"), _DATASET), "ops"),
        Panel(
            "Directories still to be listed",
            one(f"sum by (dataset) ({_value('pending_directories', _BY_TARGET)})", _DATASET),
        ),
        Panel(
            "Last run: duration",
            (
                Query(_value("last_run_duration_seconds"), "{{dataset}} all"),
                Query(_value("last_run_scan_seconds"), "{{dataset}} scan"),
            ),
            "s",
        ),
        Panel("Last run: file data", one(_value("last_run_bytes"), _DATASET), "bytes"),
        Panel(
            "Last run: names",
            (
                Query(_value("last_run_files"), "{{dataset}} files"),
                Query(_value("last_run_deleted"), "{{dataset}} deleted"),
            ),
        ),
        Panel(
            "Last run: warnings and due entries",
            (
                Query(_value("last_run_warnings"), "{{dataset}} warnings"),
                Query(_value("last_run_due_entries"), "{{dataset}} due"),
            ),
            help="What is due is sent by the next run whatever changes.",
        ),
        Panel(
            "Runs by how they ended", one(_value("runs", "dataset, state"), "{{dataset}} {{state}}")
        ),
        Panel(
            "Jobs of the newest run",
            one(_value("run_jobs", "dataset, state"), "{{dataset}} {{state}}"),
        ),
    ),
)

SCAN = Dashboard(
    "forebay-scan",
    "Forebay: scan by target",
    "What each walker does, and how its metadata target answers.",
    (
        Panel("Entries", one(_rate("scan_inodes_total", _BY_TARGET), _TARGET), "ops"),
        Panel("Directories", one(_rate("scan_directories_total", _BY_TARGET), _TARGET), "ops"),
        Panel("Sizes of files found", one(_rate("scan_bytes_total", _BY_TARGET), _TARGET), "Bps"),
        Panel(
            "Walkers busy",
            one(_rate("scan_walk_seconds_total", _BY_TARGET), _TARGET),
            *("percentunit", "Time spent walking; a walker waits for leases in the rest."),
        ),
        Panel(
            "Threads",
            (
                Query(_value("scan_threads", _BY_TARGET), f"{_TARGET} now"),
                Query(_value("scan_threads_high", _BY_TARGET), f"{_TARGET} most"),
            ),
        ),
        Panel(
            "Latency of metadata calls",
            one(_value("scan_call_latency_seconds", _BY_TARGET), _TARGET),
            *("s", "Smoothed, of calls that waited; 0 where the number of threads is fixed."),
        ),
        Panel(
            "Backoffs",
            one(_rate("scan_backoffs_total", _BY_TARGET), _TARGET),
            *("ops", "How often threads were halved because calls took too long."),
        ),
        Panel(
            "Errors",
            one(_rate("scan_errors_total", _BY_TARGET), _TARGET),
            *("ops", "Names and directories that could not be looked at."),
        ),
        Panel("Directories pending", one(_value("pending_directories", _BY_TARGET), _TARGET)),
        Panel(
            "Leases of the newest run",
            one(_value("leases", "dataset, state"), "{{dataset}} {{state}}"),
        ),
        Panel("Walk of a lease", _quantiles("lease_walk_seconds", "target"), "s"),
        Panel("Commit of a lease", _quantiles("lease_commit_seconds", "target"), "s"),
        Panel(
            "Age of the lease at hand",
            one(_value("scan_lease_age_seconds", _BY_TARGET), _TARGET),
            *("s", "Usually two seconds. A filesystem that does not answer shows here."),
        ),
        Panel(
            "Leases",
            (
                Query(_rate("scan_leases_total", _BY_TARGET), f"{_TARGET} committed"),
                Query(_rate("scan_leases_lost_total", _BY_TARGET), f"{_TARGET} lost"),
                Query(_rate("scan_leases_failed_total", _BY_TARGET), f"{_TARGET} failed"),
            ),
            "ops",
        ),
        Panel(
            "Segments written",
            (
                Query(_rate("scan_segment_bytes_total", _BY_TARGET), f"{_TARGET} bytes"),
                Query(_rate("scan_segments_total", _BY_TARGET), f"{_TARGET} segments"),
            ),
            "Bps",
        ),
        Panel(
            "Vanished, mount points, reopened",
            (
                Query(_rate("scan_vanished_total", _BY_TARGET), f"{_TARGET} vanished"),
                Query(_rate("scan_mount_points_total", _BY_TARGET), f"{_TARGET} mount points"),
                Query(_rate("scan_reopened_total", _BY_TARGET), f"{_TARGET} reopened"),
            ),
            "ops",
        ),
    ),
)

STREAMS = Dashboard(
    "forebay-streams",
    "Forebay: streams by shard",
    "What goes from the bridges to Bacula's jobs.",
    (
        Panel("File data", one(_rate("stream_bytes_total", _BY_SHARD), _SHARD), "Bps"),
        Panel("Receipts", one(_rate("stream_acknowledged_total", _BY_SHARD), _SHARD), "ops"),
        Panel("Entries sent", one(_rate("stream_sent_total", _BY_SHARD), _SHARD), "ops"),
        Panel("Warnings", one(_rate("stream_warnings_total", _BY_SHARD), _SHARD), "ops"),
        Panel("Live streams", one(_value("stream_live", _BY_SHARD), _SHARD)),
        Panel("Entries known by now", one(_value("stream_known_entries", _BY_SHARD), _SHARD)),
        Panel(
            "Sent, not acknowledged",
            one(_value("stream_waiting_entries", _BY_SHARD), _SHARD),
            help="65,536 at most.",
        ),
        Panel(
            "Without a receipt",
            one(_value("stream_idle_seconds", _BY_SHARD), _SHARD),
            *("s", "Grows while one huge file is read, or while the Storage Daemon waits."),
        ),
        Panel(
            "Streams over",
            (
                Query(_rate("stream_completed_total", _BY_SHARD), f"{_SHARD} whole"),
                Query(_rate("stream_broken_total", _BY_SHARD), f"{_SHARD} broken"),
            ),
            "ops",
        ),
        Panel(
            "Balance of shards",
            one(
                f"sum by ({_BY_SHARD}) (ray_forebay_stream_bytes_total{_OURS})"
                f" / on (dataset) group_left () (sum by (dataset)"
                f" (ray_forebay_stream_bytes_total{_OURS}) > 0)",
                _SHARD,
            ),
            *("percentunit", "Each shard's part of all bytes since the bridges started."),
        ),
        Panel("A job's way into its run", _quantiles("join_seconds"), "s"),
        Panel("Segment reads", _quantiles("segment_read_seconds"), "s"),
        Panel("Receipts made durable", _quantiles("receipts_commit_seconds"), "s"),
        Panel("Catalog questions", _quantiles("catalog_query_seconds", "actor"), "s"),
        Panel(
            "Jobs refused",
            one("sum(rate(ray_forebay_joins_refused_total[$__rate_interval]))", "jobs"),
            "ops",
        ),
        Panel("Connections", one(_value("bridge_connections", "actor"), "{{actor}}")),
    ),
)

CHANGES = Dashboard(
    "forebay-changes",
    "Forebay: changelogs",
    "Whether incrementals know what has changed.",
    (
        Panel(
            "Change sources up",
            one(_value("changelog_up", "dataset, source"), "{{dataset}} {{source}}"),
            *("bool_yes_no", "Without one an incremental looks everywhere.", "stat", 12, 5),
            red_below=1,
        ),
        Panel(
            "Age of the position",
            one(
                _age("change_position_timestamp_seconds", "dataset, source"),
                "{{dataset}} {{source}}",
            ),
            *("s", "What was done since then, the next incremental looks at.", "stat", 12, 5),
        ),
        Panel(
            "Runs that had to look everywhere",
            one(_value("change_gaps_total"), _DATASET),
            help="Incrementals without a position to start from: a gap, or no source.",
        ),
        Panel("Names to look at", one(_value("pending_names"), _DATASET)),
        Panel(
            "Events queued",
            one(_value("changelog_queued_events", "dataset"), _DATASET),
            help="fanotify: what its reader has not taken in yet.",
        ),
        Panel(
            "Processes unseen",
            one(_value("changelog_unseen_processes", "dataset"), _DATASET),
            help="fanotify: processes that its reader may not look into.",
        ),
        Panel(
            "Records not cleared",
            one(_value("changelog_uncleared_records", _BY_TARGET), _TARGET),
            help="Lustre: in the log, and not cleared on the metadata target yet.",
        ),
        Panel(
            "Since changelogs were read",
            one(_age("changelog_read_timestamp_seconds"), _DATASET),
            *("s", "Lustre. Records wait on the metadata targets meanwhile."),
        ),
        Panel("Places in the log", one(_value("changelog_places"), _DATASET), help="Lustre."),
        Panel(
            "Size of the log",
            one(_value("changelog_log_bytes", "dataset, source"), "{{dataset}} {{source}}"),
            "bytes",
        ),
        Panel("Due entries of the last run", one(_value("last_run_due_entries"), _DATASET)),
        Panel("Snapshots held", one(_value("snapshots"), _DATASET)),
    ),
)

CAPACITY = Dashboard(
    "forebay-capacity",
    "Forebay: capacity of state",
    "What the state directory and the actors take.",
    (
        Panel(
            "Free",
            one("max(ray_forebay_state_free_bytes) / max(ray_forebay_state_size_bytes)", "free"),
            *("percentunit", "Of the filesystem with the state directory.", "stat", 5, 5),
            red_below=0.1,
        ),
        Panel(
            "Free in 30 days",
            one("predict_linear(ray_forebay_state_free_bytes[6h], 30 * 86400)", "free"),
            *("bytes", "If it goes on as in the last six hours.", "stat", 5, 5),
            red_below=0,
        ),
        Panel(
            "Free inodes",
            one("max(ray_forebay_state_free_inodes)", "free"),
            kind="stat",
            columns=5,
            rows=5,
        ),
        Panel(
            "Free for the ledger",
            one("max(ray_forebay_ledger_free_bytes) / max(ray_forebay_ledger_size_bytes)", "free"),
            *("percentunit", "Of the filesystem with the run ledger.", "stat", 5, 5),
            red_below=0.05,
        ),
        Panel("Shards", one(_value("dataset_shards"), _DATASET), kind="stat", columns=4, rows=5),
        Panel("State directory", one(_value("state_bytes", "part"), "{{part}}"), "bytes"),
        Panel("Files in it", one(_value("state_files", "part"), "{{part}}")),
        Panel("Manifest of the newest run", one(_value("run_segment_bytes"), _DATASET), "bytes"),
        Panel(
            "Entries and segments of the newest run",
            (
                Query(_value("run_entries"), "{{dataset}} entries"),
                Query(_value("run_segments"), "{{dataset}} segments"),
            ),
        ),
        Panel("Memory", one(_value("process_resident_bytes", "actor"), "{{actor}}"), "bytes"),
        Panel(
            "Descriptors",
            (
                Query(_value("process_open_fds", "actor"), "{{actor}}"),
                Query("min(ray_forebay_process_max_fds)", "limit"),
            ),
        ),
        Panel("Threads", one(_value("process_threads", "actor"), "{{actor}}")),
        Panel(
            "Processor",
            one(_rate("process_cpu_seconds_total", "actor"), "{{actor}}"),
            "percentunit",
        ),
        Panel(
            "Up since",
            one(_age("process_start_timestamp_seconds", "actor"), "{{actor}}"),
            *("s", "A restarted actor begins anew."),
        ),
        Panel(
            "Starts", one(_value("actor_starts_total", "role"), "{{role}}"), help="Epochs taken."
        ),
        Panel(
            "Cost of these metrics",
            one(_value("metrics_sample_seconds", "actor"), "{{actor}}"),
            "s",
        ),
        Panel(
            "Metrics that failed", one(_rate("metrics_errors_total", "actor"), "{{actor}}"), "ops"
        ),
    ),
)

DASHBOARDS = (OVERVIEW, SCAN, STREAMS, CHANGES, CAPACITY)
