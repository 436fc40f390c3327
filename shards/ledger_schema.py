"""Tables of the run ledger (docs/formats/ledger.md).

Covers: the SQL that makes them, the schema's version, what a state means.
Does not cover: the operations (ledger).
"""

from __future__ import annotations

import enum

LEDGER_VERSION = 2


class RunState(enum.StrEnum):
    """How a run stands. Only COMPLETE and WARNINGS are backups of everything."""

    OPEN = "open"
    COMPLETE = "complete"
    WARNINGS = "warnings"  # complete, but for the files that are listed
    INCOMPLETE = "incomplete"  # at least one shard has no good job
    FAILED = "failed"  # the scan did not end, or nothing was saved
    PRUNED = "pruned"  # Bacula has forgotten its jobs, and its manifest is gone


class HsmPolicy(enum.StrEnum):
    """What a backup does with a file that HSM has released; as the plugin command says it."""

    SKIP = "skip"  # it is left out, stays due, and the job ends with warnings
    STUB = "stub"  # all but its data is saved, and it stays due
    RECALL = "recall"  # it is read, which recalls it


class JobState(enum.StrEnum):
    """How far one job of a shard has come."""

    STREAMING = "streaming"
    STREAMED = "streamed"  # its receipts are durable; the catalog has yet to show its end
    GOOD = "good"  # T or W in the catalog
    BAD = "bad"


TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE roles (role TEXT PRIMARY KEY, epoch INTEGER NOT NULL) STRICT;
CREATE TABLE datasets (
    name TEXT PRIMARY KEY,
    filesystem TEXT NOT NULL,
    root BLOB NOT NULL,
    shards INTEGER NOT NULL,
    seed INTEGER NOT NULL,           -- unsigned 64 bit, stored as signed
    created REAL NOT NULL
) STRICT;
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    dataset TEXT NOT NULL REFERENCES datasets (name),
    root BLOB NOT NULL,
    shards INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    level TEXT NOT NULL,
    state TEXT NOT NULL,
    scan_ended REAL,                 -- null while directories are pending or leased
    started REAL NOT NULL,
    ended REAL,
    reason TEXT,                     -- why it is incomplete or failed
    position TEXT,                   -- JSON, of the change source, taken before anything was read
    since TEXT,                      -- JSON position that its changes begin at; null: everywhere
    note TEXT,                       -- why it looks everywhere though it is no full backup
    margin_ns INTEGER NOT NULL,      -- what changed so shortly before it was read stays due
    merkle BLOB                      -- root over the receipts of its good jobs, once it has ended
) STRICT;
CREATE UNIQUE INDEX one_open_run ON runs (dataset) WHERE state = 'open';
CREATE TABLE leases (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL REFERENCES runs (number),
    role TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL              -- open, done, lost
) STRICT;
CREATE INDEX open_leases ON leases (run) WHERE state = 'open';
CREATE TABLE directories (           -- still to be listed
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL REFERENCES runs (number),
    target INTEGER NOT NULL,
    path BLOB NOT NULL,
    cookie INTEGER NOT NULL,         -- unsigned 64 bit, stored as signed; so are the next two
    device INTEGER NOT NULL,         -- of the directory that the cookie belongs to; 0: any
    inode INTEGER NOT NULL,
    first INTEGER NOT NULL,          -- 1: the root, whose own row is still to be written
    lease INTEGER REFERENCES leases (number),
    whole INTEGER NOT NULL           -- 1: part of a walk of everything; 0: of a changed subtree
) STRICT;
CREATE INDEX free_directories ON directories (run, target, number) WHERE lease IS NULL;
CREATE INDEX leased_directories ON directories (lease) WHERE lease IS NOT NULL;
CREATE TABLE names (                 -- to be looked at, one by one: what a change source named
    run INTEGER NOT NULL REFERENCES runs (number),
    path BLOB NOT NULL,
    state TEXT NOT NULL,             -- free, done
    lease INTEGER REFERENCES leases (number),
    PRIMARY KEY (run, path)
) STRICT, WITHOUT ROWID;
CREATE INDEX free_names ON names (run) WHERE state = 'free';
CREATE TABLE subtrees (              -- to be looked at whole, for the same reason
    run INTEGER NOT NULL REFERENCES runs (number),
    path BLOB NOT NULL,
    PRIMARY KEY (run, path)
) STRICT, WITHOUT ROWID;
CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run INTEGER NOT NULL REFERENCES runs (number),
    lease INTEGER NOT NULL REFERENCES leases (number),
    name TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    rows INTEGER NOT NULL,
    counts TEXT NOT NULL,
    whole INTEGER NOT NULL,
    UNIQUE (run, name)
) STRICT;
CREATE TABLE jobs (
    run INTEGER NOT NULL REFERENCES runs (number),
    shard INTEGER NOT NULL,
    jobid INTEGER NOT NULL,
    job TEXT NOT NULL,
    level TEXT NOT NULL,             -- F, D or I, as the Director ran it
    chain TEXT NOT NULL,             -- JSON: JobIds that it builds on, oldest first
    note TEXT NOT NULL,              -- what its job log was told about how it works
    epoch INTEGER NOT NULL,
    state TEXT NOT NULL,
    status TEXT NOT NULL DEFAULT '', -- Bacula's JobStatus letter, once the catalog shows the end
    files INTEGER NOT NULL DEFAULT 0,
    bytes INTEGER NOT NULL DEFAULT 0,
    started REAL NOT NULL,
    ended REAL,
    receipts TEXT,                   -- file name, once durable
    receipts_bytes INTEGER,
    receipts_checksum INTEGER,
    summary TEXT,                    -- JSON: entries by status, bytes, links, directories
    reason TEXT,
    PRIMARY KEY (run, shard, jobid)
) STRICT;
CREATE TABLE scan (                  -- one row a committed lease, what it found
    lease INTEGER PRIMARY KEY REFERENCES leases (number),
    run INTEGER NOT NULL,
    inodes INTEGER NOT NULL,
    directories INTEGER NOT NULL,
    bytes INTEGER NOT NULL,
    errors INTEGER NOT NULL,
    mount_points INTEGER NOT NULL    -- recorded, not descended into
) STRICT;
"""

# Made when a ledger is opened for writing, since ledgers of before them are of the same version.
PACING_TABLE = """
CREATE TABLE IF NOT EXISTS pacing (  -- of the datasets that were given one
    dataset TEXT PRIMARY KEY REFERENCES datasets (name),
    threads INTEGER NOT NULL,        -- of a walker; 0: automatic
    latency_target_us INTEGER NOT NULL
) STRICT
"""
HSM_TABLE = """
CREATE TABLE IF NOT EXISTS hsm (     -- of the datasets that were given one
    dataset TEXT PRIMARY KEY REFERENCES datasets (name),
    policy TEXT NOT NULL             -- of files that HSM has released: skip, stub or recall
) STRICT
"""
IMPORTED_TABLE = """
CREATE TABLE IF NOT EXISTS imported (  -- runs from an archive; it lacks what was pending
    run INTEGER PRIMARY KEY REFERENCES runs (number),
    time REAL NOT NULL
) STRICT
"""
SNAPSHOTS_TABLES = (
    """
CREATE TABLE IF NOT EXISTS snapshots_wanted (
    dataset TEXT PRIMARY KEY REFERENCES datasets (name),
    wanted INTEGER NOT NULL
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS snapshots (  -- until released; a row is there before the snapshot is
    path BLOB PRIMARY KEY,
    run INTEGER REFERENCES runs (number),  -- that reads it; null: it has not begun yet
    root BLOB NOT NULL,              -- the dataset's root in it; empty until it is there
    inode_mask INTEGER NOT NULL,
    time_ns INTEGER NOT NULL
) STRICT
""",
)
