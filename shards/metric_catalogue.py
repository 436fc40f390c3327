"""All metrics: names, kinds, units, labels, what they say. docs/operate/metrics.md has the same.

Covers: the catalogue. Ray puts `ray_` before each name.
Does not cover: where the values come from (the *_measures modules), exporting them (actors).

Labels have as many values as the site's configuration has names: datasets, targets, shards,
actors, states. Never a run, a path, a JobId.
"""

from __future__ import annotations

from shards.measures import Kind, Metric

_COUNTER, _GAUGE, _HISTOGRAM = Kind.COUNTER, Kind.GAUGE, Kind.HISTOGRAM
_SCAN = ("dataset", "target")
_STREAM = ("dataset", "shard")
_DATASET = ("dataset",)
_LOG = ("dataset", "source")
_ACTOR = ("actor",)

# From a millisecond to two minutes, times three and a bit.
SECONDS_BOUNDARIES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 120.0)

_ALL = (
    # Walkers: what their committed leases found
    Metric("forebay_scan_inodes_total", _COUNTER, "entries", _SCAN, "entries found by scans"),
    Metric("forebay_scan_directories_total", _COUNTER, "directories", _SCAN, "directories listed"),
    Metric("forebay_scan_bytes_total", _COUNTER, "bytes", _SCAN, "sizes of the files found"),
    Metric(
        "forebay_scan_errors_total",
        *(_COUNTER, "entries", _SCAN),
        "names or directories that could not be looked at; each makes a run end with warnings",
    ),
    Metric(
        "forebay_scan_vanished_total",
        *(_COUNTER, "entries", _SCAN),
        "names that were gone before their attributes could be read; harmless",
    ),
    Metric(
        "forebay_scan_mount_points_total",
        *(_COUNTER, "directories", _SCAN),
        "directories that another filesystem is mounted on; they are not entered",
    ),
    Metric("forebay_scan_leases_total", _COUNTER, "leases", _SCAN, "leases committed"),
    Metric(
        "forebay_scan_leases_lost_total",
        *(_COUNTER, "leases", _SCAN),
        "leases that somebody else had when they were to be committed; they are walked again",
    ),
    Metric(
        "forebay_scan_leases_failed_total",
        *(_COUNTER, "leases", _SCAN),
        "leases that could not be walked; each fails its run",
    ),
    Metric("forebay_scan_segments_total", _COUNTER, "segments", _SCAN, "segments committed"),
    Metric("forebay_scan_segment_bytes_total", _COUNTER, "bytes", _SCAN, "bytes of those segments"),
    Metric(
        "forebay_scan_walk_seconds_total",
        *(_COUNTER, "seconds", _SCAN),
        "time spent walking leases; its rate is how busy a walker is, 1 at most",
    ),
    Metric(
        "forebay_scan_backoffs_total",
        *(_COUNTER, "times", _SCAN),
        "times the number of threads was halved because calls took too long",
    ),
    Metric(
        "forebay_scan_reopened_total",
        *(_COUNTER, "directories", _SCAN),
        "directories closed for want of descriptors and opened again",
    ),
    Metric(
        "forebay_scan_threads", _GAUGE, "threads", _SCAN, "threads of the last walk, at its end"
    ),
    Metric("forebay_scan_threads_high", _GAUGE, "threads", _SCAN, "most threads of the last walk"),
    Metric(
        "forebay_scan_call_latency_seconds",
        *(_GAUGE, "seconds", _SCAN),
        "how long metadata calls that waited took at the end of the last walk, smoothed; 0 where"
        " the number of threads is fixed",
    ),
    Metric(
        "forebay_scan_lease_age_seconds",
        *(_GAUGE, "seconds", _SCAN),
        "how long the lease at hand has been walked; usually two seconds, 0 between leases",
    ),
    Metric("forebay_lease_walk_seconds", _HISTOGRAM, "seconds", ("target",), "walk of a lease"),
    Metric(
        "forebay_lease_commit_seconds",
        *(_HISTOGRAM, "seconds", ("target",)),
        "a lease made durable and committed: segments flushed, one transaction of the ledger",
    ),
    # Coordinator: what the ledger says
    Metric("forebay_dataset_shards", _GAUGE, "shards", _DATASET, "number of shards"),
    Metric("forebay_run_open", _GAUGE, "runs", _DATASET, "1 while a run is open"),
    Metric("forebay_run_open_seconds", _GAUGE, "seconds", _DATASET, "how long the run is open"),
    Metric(
        "forebay_run_scanning", _GAUGE, "runs", _DATASET, "1 while the scan of the open run goes on"
    ),
    Metric(
        "forebay_pending_directories",
        *(_GAUGE, "directories", _SCAN),
        "directories of the open run still to be listed, leased ones among them",
    ),
    Metric(
        "forebay_pending_names",
        *(_GAUGE, "names", _DATASET),
        "names that a change source named and that are still to be looked at",
    ),
    Metric(
        "forebay_leases",
        *(_GAUGE, "leases", ("dataset", "state")),
        "leases of the newest run: open, done, lost",
    ),
    Metric("forebay_run_entries", _GAUGE, "entries", _DATASET, "entries in the newest manifest"),
    Metric("forebay_run_segments", _GAUGE, "segments", _DATASET, "segments of the newest run"),
    Metric("forebay_run_segment_bytes", _GAUGE, "bytes", _DATASET, "bytes of those segments"),
    Metric(
        "forebay_run_jobs",
        *(_GAUGE, "jobs", ("dataset", "state")),
        "jobs of the newest run: streaming, streamed, good, bad",
    ),
    Metric(
        "forebay_runs",
        *(_GAUGE, "runs", ("dataset", "state")),
        "runs in the ledger: open, complete, warnings, incomplete, failed, pruned",
    ),
    Metric(
        "forebay_last_good_backup_timestamp_seconds",
        *(_GAUGE, "seconds", _DATASET),
        "when the newest run that saved everything began (Unix time); 0: there is none",
    ),
    Metric(
        "forebay_last_run_good",
        *(_GAUGE, "runs", _DATASET),
        "1 if the last run that has ended is complete, with or without warnings",
    ),
    Metric("forebay_last_run_duration_seconds", _GAUGE, "seconds", _DATASET, "how long it took"),
    Metric("forebay_last_run_scan_seconds", _GAUGE, "seconds", _DATASET, "how long its scan took"),
    Metric("forebay_last_run_files", _GAUGE, "files", _DATASET, "files that its good jobs saved"),
    Metric("forebay_last_run_bytes", _GAUGE, "bytes", _DATASET, "bytes of file data they sent"),
    Metric("forebay_last_run_deleted", _GAUGE, "names", _DATASET, "names they sent as deleted"),
    Metric(
        "forebay_last_run_warnings",
        *(_GAUGE, "entries", _DATASET),
        "entries that its jobs could not save as they are",
    ),
    Metric(
        "forebay_last_run_due_entries",
        *(_GAUGE, "entries", _DATASET),
        "entries that the next run sends whatever changes: warnings, and stubs of HSM files",
    ),
    Metric(
        "forebay_change_position_timestamp_seconds",
        *(_GAUGE, "seconds", _LOG),
        "when the newest position of the change source was taken that a good run has (Unix time)",
    ),
    Metric(
        "forebay_change_gaps_total",
        *(_COUNTER, "runs", _DATASET),
        "runs that had to look everywhere though they were no full ones",
    ),
    Metric("forebay_snapshots", _GAUGE, "snapshots", _DATASET, "snapshots held for its runs"),
    Metric(
        "forebay_actor_starts_total",
        *(_COUNTER, "starts", ("role",)),
        "epochs taken, over the ledger's life: one for each start of coordinator and walkers",
    ),
    # Coordinator: change logs
    Metric(
        "forebay_changelog_up",
        *(_GAUGE, "readers", _LOG),
        "1 if the reader of a dataset's changes answers, or its changelogs are set up; else 0",
    ),
    Metric(
        "forebay_changelog_queued_events",
        *(_GAUGE, "records", _LOG),
        "events that the reader has not taken in yet (fanotify)",
    ),
    Metric(
        "forebay_changelog_unseen_processes",
        *(_GAUGE, "processes", _LOG),
        "processes that the reader may not look into; see `forebay watch` (fanotify)",
    ),
    Metric("forebay_changelog_log_bytes", _GAUGE, "bytes", _LOG, "size of the change log's files"),
    Metric("forebay_changelog_places", _GAUGE, "places", _LOG, "places in the log (Lustre)"),
    Metric(
        "forebay_changelog_uncleared_records",
        *(_GAUGE, "records", _SCAN),
        "records of a metadata target that are in the log and not cleared there yet (Lustre)",
    ),
    Metric(
        "forebay_changelog_read_timestamp_seconds",
        *(_GAUGE, "seconds", _LOG),
        "when the changelogs were last read into the log (Unix time, Lustre)",
    ),
    # Coordinator: the state directory
    Metric(
        "forebay_state_bytes",
        *(_GAUGE, "bytes", ("part",)),
        "sizes in the state directory: runs, views, changes, ledger; counted once a minute",
    ),
    Metric("forebay_state_files", _GAUGE, "files", ("part",), "files there"),
    Metric("forebay_state_free_bytes", _GAUGE, "bytes", (), "free on its filesystem, for its user"),
    Metric("forebay_state_size_bytes", _GAUGE, "bytes", (), "size of that filesystem"),
    Metric("forebay_state_free_inodes", _GAUGE, "inodes", (), "free there; 0 if it does not say"),
    Metric(
        "forebay_ledger_free_bytes",
        *(_GAUGE, "bytes", ()),
        "free for its user on the filesystem with the run ledger, which may be the same one",
    ),
    Metric("forebay_ledger_size_bytes", _GAUGE, "bytes", (), "size of that filesystem"),
    # Bridges
    Metric("forebay_stream_live", _GAUGE, "streams", _STREAM, "streams to jobs that run now"),
    Metric("forebay_stream_sent_total", _COUNTER, "entries", _STREAM, "entries sent to jobs"),
    Metric(
        "forebay_stream_acknowledged_total",
        *(_COUNTER, "entries", _STREAM),
        "entries whose receipt came back",
    ),
    Metric(
        "forebay_stream_bytes_total",
        *(_COUNTER, "bytes", _STREAM),
        "bytes of file data that jobs sent, by their receipts",
    ),
    Metric(
        "forebay_stream_warnings_total",
        *(_COUNTER, "entries", _STREAM),
        "receipts of entries that were not saved as they are",
    ),
    Metric(
        "forebay_stream_known_entries",
        *(_GAUGE, "entries", _STREAM),
        "entries of the live streams that are known by now; all of them once the scan has ended",
    ),
    Metric(
        "forebay_stream_waiting_entries",
        *(_GAUGE, "entries", _STREAM),
        "entries sent and not acknowledged yet",
    ),
    Metric(
        "forebay_stream_idle_seconds",
        *(_GAUGE, "seconds", _STREAM),
        "how long no receipt has come while some are awaited; grows while one huge file is read",
    ),
    Metric("forebay_stream_completed_total", _COUNTER, "streams", _STREAM, "streams sent whole"),
    Metric(
        "forebay_stream_broken_total",
        _COUNTER,
        "streams",
        _STREAM,
        "streams that broke; so do jobs",
    ),
    Metric("forebay_joins_refused_total", _COUNTER, "jobs", (), "jobs that got no stream"),
    Metric("forebay_bridge_connections", _GAUGE, "connections", _ACTOR, "connections from plugins"),
    Metric("forebay_join_seconds", _HISTOGRAM, "seconds", (), "a job's way into its run"),
    Metric(
        "forebay_segment_read_seconds",
        *(_HISTOGRAM, "seconds", ()),
        "rows of one shard opened in a segment; its checksum, when it is the first time",
    ),
    Metric("forebay_receipts_commit_seconds", _HISTOGRAM, "seconds", (), "receipts made durable"),
    Metric("forebay_catalog_query_seconds", _HISTOGRAM, "seconds", _ACTOR, "a catalog question"),
    # Every actor
    Metric("forebay_process_resident_bytes", _GAUGE, "bytes", _ACTOR, "resident memory"),
    Metric("forebay_process_open_fds", _GAUGE, "descriptors", _ACTOR, "open descriptors"),
    Metric("forebay_process_max_fds", _GAUGE, "descriptors", _ACTOR, "most that it may open"),
    Metric("forebay_process_threads", _GAUGE, "threads", _ACTOR, "threads"),
    Metric("forebay_process_cpu_seconds_total", _COUNTER, "seconds", _ACTOR, "processor time"),
    Metric(
        "forebay_process_start_timestamp_seconds",
        _GAUGE,
        "seconds",
        _ACTOR,
        "its start (Unix time)",
    ),
    Metric(
        "forebay_metrics_sample_seconds",
        *(_GAUGE, "seconds", _ACTOR),
        "processor time that the last sampling of these metrics took",
    ),
    Metric(
        "forebay_metrics_errors_total",
        *(_COUNTER, "times", _ACTOR),
        "times something could not be sampled; what is missing then keeps being missing",
    ),
)

METRICS = {metric.name: metric for metric in _ALL}
