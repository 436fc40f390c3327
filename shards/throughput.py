"""How much was done when: bounded time series of scans and streams.

Covers: a series that never grows past a number of samples, several of them on one time axis, and
the ledger's tables of them.
Does not cover: who measures (receipts, ledger), drawing (cluster).
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

SAMPLES_MAX = 128  # of one job's stream, or of one target's scan
WIDTH_FIRST_S = 0.25
DIGITS = 6  # of an amount that is kept

Query = Callable[[str, Sequence[object]], list[sqlite3.Row]]  # of a ledger

# Made when a ledger is opened for writing, since ledgers of before them are of the same version.
THROUGHPUT_TABLES = (
    """
CREATE TABLE IF NOT EXISTS lease_times (  -- of open leases
    lease INTEGER PRIMARY KEY REFERENCES leases (number),
    taken REAL NOT NULL
) STRICT
""",
    """
CREATE TABLE IF NOT EXISTS scan_times (   -- of the committed leases of a run, by walker
    run INTEGER NOT NULL REFERENCES runs (number),
    role TEXT NOT NULL,
    seconds REAL NOT NULL,                -- from taking to committing, added up
    series TEXT NOT NULL,                 -- JSON: when how much was found
    PRIMARY KEY (run, role)
) STRICT, WITHOUT ROWID
""",
    """
CREATE TABLE IF NOT EXISTS stream_times ( -- of jobs whose receipts are durable
    run INTEGER NOT NULL REFERENCES runs (number),
    shard INTEGER NOT NULL,
    jobid INTEGER NOT NULL,
    series TEXT NOT NULL,                 -- JSON: when how much was saved
    PRIMARY KEY (run, shard, jobid)
) STRICT, WITHOUT ROWID
""",
)


@dataclass(slots=True)
class Series:
    """Names and bytes by time, in at most SAMPLES_MAX samples of equal width.

    When time goes past the last sample, each two become one of twice the width.
    """

    start: float = 0.0  # of the first sample, seconds since the epoch
    width_s: float = WIDTH_FIRST_S
    names: list[float] = field(default_factory=list)
    bytes: list[float] = field(default_factory=list)

    @property
    def end(self) -> float:
        """When the last sample ends."""
        return self.start + self.width_s * len(self.names)

    def add(self, begin: float, end: float, names: int, size_bytes: int) -> None:
        """Add what was done between two moments, spread evenly over them."""
        if not self.names:
            self.start = begin
        begin = max(begin, self.start)  # a clock may be set back
        end = max(begin, end)
        while end >= self.start + SAMPLES_MAX * self.width_s:
            self._halve()
        missing = int((end - self.start) / self.width_s) + 1 - len(self.names)
        self.names.extend([0.0] * missing)
        self.bytes.extend([0.0] * missing)
        for sample, share in _shares(begin - self.start, end - self.start, self.width_s):
            index = min(sample, len(self.names) - 1)
            self.names[index] += names * share
            self.bytes[index] += size_bytes * share

    def _halve(self) -> None:
        self.names = _in_pairs(self.names)
        self.bytes = _in_pairs(self.bytes)
        self.width_s *= 2

    def to_json(self) -> str:
        return json.dumps(
            [
                self.start,
                self.width_s,
                [round(value, DIGITS) for value in self.names],
                [round(value, DIGITS) for value in self.bytes],
            ]
        )

    @classmethod
    def from_json(cls, text: str) -> Series:
        start, width_s, names, size_bytes = json.loads(text)
        return cls(start, width_s, names, size_bytes)


@dataclass(frozen=True, slots=True)
class ScanTimes:
    """What the committed leases of one walker took."""

    role: str
    seconds: float
    series: Series


def on_one_axis(several: Iterable[Series], start: float, end: float, samples: int) -> Series:
    """Add series up over a span of time; what lies outside goes to its first or last sample."""
    width_s = max(end - start, WIDTH_FIRST_S) / samples
    made = Series(start, width_s, [0.0] * samples, [0.0] * samples)
    for series in several:
        for number, (names, size_bytes) in enumerate(zip(series.names, series.bytes, strict=True)):
            begin = series.start + number * series.width_s - start
            for sample, share in _shares(begin, begin + series.width_s, width_s):
                index = min(max(sample, 0), samples - 1)
                made.names[index] += names * share
                made.bytes[index] += size_bytes * share
    return made


def _shares(begin: float, end: float, width_s: float) -> list[tuple[int, float]]:
    """Return the samples that a span touches, and which part of it lies in each."""
    first, last = int(begin // width_s), int(end // width_s)
    if first == last or end <= begin:
        return [(first, 1.0)]
    edges = [begin, *(number * width_s for number in range(first + 1, last + 1)), end]
    spans = zip(range(first, last + 1), edges, edges[1:], strict=False)
    return [(sample, (high - low) / (end - begin)) for sample, low, high in spans]


def _in_pairs(values: list[float]) -> list[float]:
    return [sum(values[number : number + 2]) for number in range(0, len(values), 2)]


# The ledger's part: each function is called inside one of its transactions.


def lease_taken(db: sqlite3.Connection, lease: int) -> None:
    """Note when a lease was taken."""
    db.execute("INSERT INTO lease_times VALUES (?, ?)", (lease, time.time()))


def lease_committed(
    db: sqlite3.Connection, run: int, lease: int, inodes: int, size_bytes: int
) -> None:
    """Add a committed lease to what its walker has found."""
    row = db.execute(
        "SELECT role, taken FROM leases JOIN lease_times ON lease = number WHERE number = ?",
        (lease,),
    ).fetchone()
    if row is None:  # taken before the ledger had this table
        return
    role, taken = row
    now = time.time()
    known = db.execute(
        "SELECT seconds, series FROM scan_times WHERE run = ? AND role = ?", (run, role)
    ).fetchone()
    seconds, series = (known[0], Series.from_json(known[1])) if known else (0.0, Series())
    series.add(taken, now, inodes, size_bytes)
    db.execute(
        "INSERT OR REPLACE INTO scan_times VALUES (?, ?, ?, ?)",
        (run, role, seconds + max(0.0, now - taken), series.to_json()),
    )
    # Of this lease, and of lost ones: nobody commits those any more.
    db.execute(
        "DELETE FROM lease_times WHERE lease IN"
        " (SELECT lease FROM lease_times JOIN leases ON number = lease"
        " WHERE lease = ? OR state != 'open')",
        (lease,),
    )


def stream_recorded(
    db: sqlite3.Connection, run: int, shard: int, jobid: int, series: Series | None
) -> None:
    """Keep the series of a job whose receipts are durable."""
    if series is not None:
        db.execute(
            "INSERT OR REPLACE INTO stream_times VALUES (?, ?, ?, ?)",
            (run, shard, jobid, series.to_json()),
        )


# Reading; a ledger of before these tables may be open for reading only.


def scan_times(query: Query, run: int) -> list[ScanTimes]:
    """Return what the committed leases of a run took, by walker."""
    if not _exists(query, "scan_times"):
        return []
    rows = query("SELECT * FROM scan_times WHERE run = ? ORDER BY role", (run,))
    return [ScanTimes(row["role"], row["seconds"], Series.from_json(row["series"])) for row in rows]


def stream_times(query: Query, run: int) -> dict[tuple[int, int], Series]:
    """Return the series of a run's jobs, by shard and JobId."""
    if not _exists(query, "stream_times"):
        return {}
    rows = query("SELECT * FROM stream_times WHERE run = ?", (run,))
    return {(row["shard"], row["jobid"]): Series.from_json(row["series"]) for row in rows}


def open_leases(query: Query, run: int) -> list[tuple[str, float | None]]:
    """Return the walker of each open lease of a run, and since when it has it if that is known."""
    taken = "(SELECT taken FROM lease_times WHERE lease = number)"
    if not _exists(query, "lease_times"):
        taken = "NULL"
    rows = query(
        f"SELECT role, {taken} AS taken FROM leases WHERE run = ? AND state = 'open' ORDER BY role",
        (run,),
    )
    return [(row["role"], row["taken"]) for row in rows]


def _exists(query: Query, table: str) -> bool:
    return bool(query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ?", (table,)))
