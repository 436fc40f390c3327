"""The run ledger: what is true of datasets, runs, leases, segments and jobs.

Covers: every state change, each one transaction, fenced by epochs. One process writes (a lock says
so); others may read.
Does not cover: waking whoever waits for a change (actors), what is in segments and receipts.
"""

from __future__ import annotations

import fcntl
import math
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from shards.changes import Position
from shards.errors import ForebayError, UsageError
from shards.lease import Pacing, PendingDirectory
from shards.ledger_files import complete_tables, make_empty, skip_runs
from shards.ledger_schema import (
    LEDGER_VERSION,
    HsmPolicy,
    RunState,
)
from shards.segment import SegmentInfo
from shards.state import LEDGER_COPY, StateDirectory
from shards.throughput import THROUGHPUT_TABLES, lease_committed, lease_taken

# A lease takes at most so many directories; the walker's row budget bounds its work.
LEASE_DIRECTORIES_MAX = 1_024
# Of so many that are pending one is left: while a lease is committed its walker walks another.
LEASE_LEAVES_ONE_OF = 4
LEASE_NAMES_MAX = 8_192
SEGMENTS_PAGE_MAX = 256
BUSY_TIMEOUT_S = 30.0


class LedgerBusy(ForebayError):
    """Another process writes this ledger."""

    template = (
        "the run ledger {0} is in use by another Forebay process; wait until that backup has ended"
    )


class LedgerClosed(ForebayError):
    """Whoever has the ledger is ending; the next one can be asked the same."""

    template = "the run ledger {0} has been closed"


class LedgerDamaged(ForebayError):
    """The ledger cannot be used."""

    template = (
        "the run ledger {0} cannot be used: {1}; free space if its disk is full, else move it away"
        " to start anew with full backups"
    )


class StaleEpoch(ForebayError):
    """Somebody newer has taken over; what this one writes does not count."""

    template = "{0} has epoch {1}, but epoch {2} has taken over"


class LeaseLost(ForebayError):
    """The lease was taken away; its directories are walked again by somebody else."""

    template = "lease {0} is {1}"


class NotResumable(UsageError):
    """Only the newest run of a dataset can go on."""

    template = "run {0} cannot be resumed: {1}"


class RunOpen(ForebayError):
    """A dataset has one open run at a time."""

    template = "dataset {0} has an open run already ({1}); wait until it has ended"


@dataclass(frozen=True, slots=True)
class Dataset:
    """A named tree to protect."""

    name: str
    filesystem: str
    root: bytes
    shards: int
    seed: int
    created: float = 0.0


@dataclass(frozen=True, slots=True)
class Run:
    """One logical backup of a dataset."""

    number: int
    dataset: str
    root: bytes
    shards: int
    seed: int
    level: str
    state: RunState
    scan_ended: float | None
    started: float
    ended: float | None
    reason: str | None
    position: Position | None = None  # of the change source, taken before anything was read
    since: Position | None = None  # what its changes begin at; None: it looks everywhere
    note: str | None = None  # why it looks everywhere though it is no full backup
    margin_ns: int = 0  # what changed so shortly before it was read stays due
    merkle: bytes | None = None  # root over the receipts of its good jobs, once it has ended


@dataclass(frozen=True, slots=True)
class Lease:
    """A set of directories that one walker is enumerating."""

    number: int
    run: int
    epoch: int
    root: bytes
    shards: int
    seed: int
    directories: tuple[PendingDirectory, ...]
    include_root: bool  # the root's own row is still to be written
    whole: bool = True  # part of a walk of everything
    names: tuple[bytes, ...] = ()  # to be looked at one by one, without what is below them
    pacing: Pacing = field(default_factory=Pacing)
    read_root: bytes = b""  # where the root is looked at, if not as it is: in a snapshot
    inode_mask: int = 0  # bits of an inode number there that are the live one's; 0: all
    dataset: str = ""


@dataclass(frozen=True, slots=True)
class LeaseResult:
    """What a walker found under a lease; committed as a whole."""

    segments: tuple[SegmentInfo, ...]
    frontier: tuple[PendingDirectory, ...]
    inodes: int
    directories: int
    size_bytes: int
    errors: int
    mount_points: int = 0
    whole: bool = True  # as the lease's

    def among(self, targets: int) -> LeaseResult:
        """Return it with what has no walker of its own given to target 0's."""
        if all(directory.target < targets for directory in self.frontier):
            return self
        frontier = (
            directory if directory.target < targets else replace(directory, target=0)
            for directory in self.frontier
        )
        return replace(self, frontier=tuple(frontier))


@dataclass(frozen=True, slots=True)
class Beginning:
    """How a run begins: where its change source stands, and what it says."""

    position: Position | None = None
    since: Position | None = None  # None: the run looks everywhere
    names: tuple[bytes, ...] = ()
    subtrees: tuple[bytes, ...] = ()
    note: str | None = None  # why it looks everywhere though it is no full backup
    margin_ns: int = 0


@dataclass(frozen=True, slots=True)
class ScanTotals:
    """What the committed leases of a run found."""

    inodes: int
    directories: int
    size_bytes: int
    errors: int
    mount_points: int


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _unsigned(value: int) -> int:
    return value & ((1 << 64) - 1)


class Ledger:
    """The ledger, opened for writing by one process or for reading by any."""

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        make: Callable[[Path], None] | None = None,
    ) -> None:
        """make is called, under the lock, when there is no ledger yet."""
        self.path = path
        self._closed = False
        self._lock: int | None = None
        if not read_only:
            self._lock = self._take_lock()
        try:
            if not read_only and not path.exists():
                if make is not None:
                    make(path)
                else:
                    make_empty(path, StateDirectory(path.parent).runs)
            self._db = self._open(read_only)
        except sqlite3.Error as error:
            self._release_lock()
            raise LedgerDamaged(str(path), str(error)) from error
        except BaseException:
            self._release_lock()
            raise

    def _take_lock(self) -> int:
        descriptor = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, mode=0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(descriptor)
            raise LedgerBusy(str(self.path)) from error
        return descriptor

    def _release_lock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _open(self, read_only: bool) -> sqlite3.Connection:
        mode = "ro" if read_only else "rwc"
        if read_only and self.path.name == LEDGER_COPY:  # replaced as a whole, never written
            mode += "&immutable=1"
        db = sqlite3.connect(
            f"{self.path.absolute().as_uri()}?mode={mode}",
            uri=True,
            timeout=BUSY_TIMEOUT_S,
            isolation_level=None,
            check_same_thread=False,
        )
        db.row_factory = sqlite3.Row
        if not read_only:
            db.execute("PRAGMA synchronous = FULL")
        row = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        if row is None or row["value"] != str(LEDGER_VERSION):
            raise LedgerDamaged(str(self.path), "it has another version")
        if not read_only:
            complete_tables(db)
            for table in THROUGHPUT_TABLES:
                db.execute(table)
        return db

    @property
    def identity(self) -> str:
        """A random name that no other ledger has; its copies have it as well."""
        row = self._first("SELECT value FROM meta WHERE key = 'identity'")
        return row["value"] if row else ""

    def skip_runs(self, newest: int) -> None:
        """Let the next run have a number above this one."""
        with self.transaction() as db:
            skip_runs(db, newest)

    def is_imported(self, run: int) -> bool:
        """Tell whether a run came from an archive: it can be restored, not resumed."""
        if not self.query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'imported'"):
            return False
        return bool(self.query("SELECT 1 FROM imported WHERE run = ?", (run,)))

    def close(self) -> None:
        self._closed = True
        self._db.close()
        self._release_lock()

    def query(self, sql: str, parameters: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Read committed rows."""
        try:
            return self._db.execute(sql, parameters).fetchall()
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    def _unusable(self, error: sqlite3.DatabaseError) -> ForebayError:
        if self._closed:
            return LedgerClosed(str(self.path))
        return LedgerDamaged(str(self.path), str(error))

    def _first(self, sql: str, parameters: Sequence[object] = ()) -> sqlite3.Row | None:
        rows = self.query(sql, parameters)
        return rows[0] if rows else None

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Change several tables at once or none."""
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            raise self._unusable(error) from error

    # Epochs

    def take_epoch(self, role: str) -> int:
        """Give a starting actor the next epoch; what its predecessors held is lost to them."""
        with self.transaction() as db:
            db.execute(
                "WITH floor (epoch) AS (SELECT COALESCE(MAX(CAST(value AS INTEGER)), 0) FROM meta"
                " WHERE key = 'epoch_floor')"
                " INSERT INTO roles SELECT ?, floor.epoch + 1 FROM floor WHERE true"
                " ON CONFLICT (role) DO UPDATE SET epoch = MAX(roles.epoch + 1, excluded.epoch)",
                (role,),
            )
            epoch: int = db.execute("SELECT epoch FROM roles WHERE role = ?", (role,)).fetchone()[0]
            lost = db.execute(
                "SELECT number FROM leases WHERE role = ? AND state = 'open'", (role,)
            ).fetchall()
            for (number,) in lost:
                db.execute("UPDATE leases SET state = 'lost' WHERE number = ?", (number,))
                for table in ("directories", "names"):
                    db.execute(f"UPDATE {table} SET lease = NULL WHERE lease = ?", (number,))
        return epoch

    def check_epoch(self, role: str, epoch: int) -> None:
        """Refuse an actor that has been replaced."""
        row = self._first("SELECT epoch FROM roles WHERE role = ?", (role,))
        if row is None or row[0] != epoch:
            raise StaleEpoch(role, epoch, row[0] if row else 0)

    # Datasets

    def put_dataset(self, dataset: Dataset) -> None:
        """Create a dataset."""
        with self.transaction() as db:
            db.execute(
                "INSERT INTO datasets VALUES (?, ?, ?, ?, ?, ?)",
                (
                    dataset.name,
                    dataset.filesystem,
                    dataset.root,
                    dataset.shards,
                    _signed(dataset.seed),
                    dataset.created or time.time(),
                ),
            )

    def set_shards(self, name: str, shards: int) -> None:
        """Change the number of shards; the next run is a Full in new FileSets."""
        with self.transaction() as db:
            db.execute("UPDATE datasets SET shards = ? WHERE name = ?", (shards, name))

    def set_pacing(self, name: str, pacing: Pacing) -> None:
        """Change how a dataset is walked, from the next lease on."""
        with self.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO pacing VALUES (?, ?, ?)",
                (name, pacing.threads, pacing.latency_target_us),
            )

    def pacing(self, name: str) -> Pacing:
        """Return how a dataset is walked."""
        row = self._first(
            "SELECT threads, latency_target_us FROM pacing WHERE dataset = ?", (name,)
        )
        return Pacing(*row) if row else Pacing()

    def set_hsm(self, name: str, policy: HsmPolicy) -> None:
        """Change what becomes of a dataset's files that HSM has released."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO hsm VALUES (?, ?)", (name, policy.value))

    def hsm(self, name: str) -> HsmPolicy:
        """Return what becomes of a dataset's files that HSM has released."""
        # A ledger of before this table may be open for reading only.
        if not self.query("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'hsm'"):
            return HsmPolicy.SKIP
        row = self._first("SELECT policy FROM hsm WHERE dataset = ?", (name,))
        return HsmPolicy(row["policy"]) if row else HsmPolicy.SKIP

    def dataset(self, name: str) -> Dataset | None:
        row = self._first("SELECT * FROM datasets WHERE name = ?", (name,))
        return _dataset(row) if row else None

    def datasets(self) -> list[Dataset]:
        rows = self.query("SELECT * FROM datasets ORDER BY name")
        return [_dataset(row) for row in rows]

    # Runs

    def begin_run(self, name: str, level: str, beginning: Beginning | None = None) -> Run:
        """Open a run of a dataset; without changes its root is the first pending directory."""
        dataset = self.dataset(name)
        assert dataset is not None, f"dataset {name} was looked up before"
        begun = beginning or Beginning()
        with self.transaction() as db:
            row = db.execute(
                "SELECT number FROM runs WHERE dataset = ? AND state = 'open'", (name,)
            ).fetchone()
            if row:
                raise RunOpen(name, row[0])
            for table in ("directories", "names", "subtrees"):  # older runs are never resumed
                db.execute(
                    f"DELETE FROM {table} WHERE run IN (SELECT number FROM runs WHERE dataset = ?)",
                    (name,),
                )
            cursor = db.execute(
                "INSERT INTO runs (dataset, root, shards, seed, level, state, started, position,"
                " since, note, margin_ns) VALUES (?, ?, ?, ?, ?, 'open', ?, ?, ?, ?, ?)",
                (
                    name,
                    dataset.root,
                    dataset.shards,
                    _signed(dataset.seed),
                    level,
                    time.time(),
                    begun.position and begun.position.to_json(),
                    begun.since and begun.since.to_json(),
                    begun.note,
                    begun.margin_ns,
                ),
            )
            number = cursor.lastrowid
            assert number is not None
            if begun.since is None:
                _look_everywhere(db, number)
            else:
                look_at(db, number, begun.names, begun.subtrees)
                _check_scan_ended(db, number)  # at once, if nothing has changed
        run = self.run(number)
        assert run is not None
        return run

    def widen(self, number: int, note: str) -> None:
        """Make an open run that looks at changes only look everywhere."""
        with self.transaction() as db:
            changed = db.execute(
                "UPDATE runs SET since = NULL, note = ?, scan_ended = NULL"
                " WHERE number = ? AND state = 'open' AND since IS NOT NULL",
                (note, number),
            ).rowcount
            if changed:
                _look_everywhere(db, number)

    def reopen_run(self, number: int, targets: int) -> Run:
        """Open the newest run of a dataset again: its scan and its shards go on.

        What no target below so many serves goes to target 0.
        """
        run = self.run(number)
        if run is None:
            raise NotResumable(number, "there is no such run; `forebay runs` lists them")
        newest = self.runs(run.dataset)[0].number
        if newest != number:
            raise NotResumable(
                number, f"run {newest} of {run.dataset} began after it; make a new backup instead"
            )
        if run.state not in (RunState.INCOMPLETE, RunState.FAILED):
            raise NotResumable(number, f"it is {run.state.value}")
        if self.is_imported(number):
            raise NotResumable(number, "it came from an archive; make a new backup instead")
        with self.transaction() as db:
            db.execute(
                "UPDATE runs SET state = 'open', ended = NULL, reason = NULL WHERE number = ?",
                (number,),
            )
            for table in ("directories", "names"):
                db.execute(f"UPDATE {table} SET lease = NULL WHERE run = ?", (number,))
            db.execute(
                "UPDATE directories SET target = 0 WHERE run = ? AND target >= ?", (number, targets)
            )
            _check_scan_ended(db, number)
        reopened = self.run(number)
        assert reopened is not None
        return reopened

    def run(self, number: int) -> Run | None:
        row = self._first("SELECT * FROM runs WHERE number = ?", (number,))
        return _run(row) if row else None

    def runs(self, dataset: str | None = None) -> list[Run]:
        """Return runs, newest first."""
        rows = self.query(
            "SELECT * FROM runs WHERE ? IS NULL OR dataset = ? ORDER BY number DESC",
            (dataset, dataset),
        )
        return [_run(row) for row in rows]

    def open_run(self, dataset: str) -> Run | None:
        row = self._first("SELECT * FROM runs WHERE dataset = ? AND state = 'open'", (dataset,))
        return _run(row) if row else None

    def open_runs(self) -> list[Run]:
        """Return the runs of all datasets that are open, newest first."""
        rows = self.query("SELECT * FROM runs WHERE state = 'open' ORDER BY number DESC")
        return [_run(row) for row in rows]

    def end_run(
        self,
        number: int,
        state: RunState,
        reason: str | None = None,
        merkle: bytes | None = None,
    ) -> None:
        """Close a run. What is still pending stays, for it may be resumed."""
        with self.transaction() as db:
            db.execute(
                "UPDATE runs SET state = ?, reason = ?, ended = ?, merkle = ? WHERE number = ?",
                (state.value, reason, time.time(), merkle, number),
            )
            db.execute(
                "UPDATE leases SET state = 'lost' WHERE run = ? AND state = 'open'", (number,)
            )
            for table in ("directories", "names"):
                db.execute(f"UPDATE {table} SET lease = NULL WHERE run = ?", (number,))

    # Leases and segments

    def take_lease(self, target: int, role: str, epoch: int) -> Lease | None:
        """Lease pending directories of a target to a walker, newest first, or None.

        Newest first keeps the walk depth-first, so that the list of pending directories stays
        short. Some are left, if there are several, for the lease after it.
        """
        with self.transaction() as db:
            self.check_epoch(role, epoch)
            row = db.execute(
                "SELECT runs.*, whole FROM directories JOIN runs ON runs.number = run"
                " WHERE lease IS NULL AND target = ? AND state = 'open' ORDER BY run LIMIT 1",
                (target,),
            ).fetchone()
            if row is None:
                return self._lease_names(db, role, epoch)
            run: int = row["number"]
            rows = db.execute(
                "SELECT * FROM directories WHERE run = ? AND target = ? AND lease IS NULL"
                " AND whole = ? ORDER BY number DESC LIMIT ?",
                (run, target, row["whole"], 2 * LEASE_DIRECTORIES_MAX),
            ).fetchall()
            share = len(rows) - math.ceil(len(rows) / LEASE_LEAVES_ONE_OF)
            rows = rows[: max(1, min(share, LEASE_DIRECTORIES_MAX))]
            number = _new_lease(db, run, role, epoch)
            db.executemany(
                "UPDATE directories SET lease = ? WHERE number = ?",
                [(number, row["number"]) for row in rows],
            )
        directories = tuple(
            PendingDirectory(
                row["path"],
                _unsigned(row["cookie"]),
                row["target"],
                _unsigned(row["device"]),
                _unsigned(row["inode"]),
            )
            for row in rows
        )
        owner = _run(row)
        return Lease(
            number,
            run,
            epoch,
            owner.root,
            owner.shards,
            owner.seed,
            directories,
            any(row["first"] for row in rows),
            bool(row["whole"]),
            pacing=self.pacing(owner.dataset),
            dataset=owner.dataset,
        )

    def _lease_names(self, db: sqlite3.Connection, role: str, epoch: int) -> Lease | None:
        row = db.execute(
            "SELECT runs.* FROM names JOIN runs ON runs.number = run"
            " WHERE names.state = 'free' AND lease IS NULL AND runs.state = 'open'"
            " ORDER BY run LIMIT 1"
        ).fetchone()
        if row is None:
            return None
        run = _run(row)
        paths = [
            row[0]
            for row in db.execute(
                "SELECT path FROM names WHERE run = ? AND state = 'free' AND lease IS NULL LIMIT ?",
                (run.number, LEASE_NAMES_MAX),
            )
        ]
        number = _new_lease(db, run.number, role, epoch)
        db.executemany(
            "UPDATE names SET lease = ? WHERE run = ? AND path = ?",
            [(number, run.number, path) for path in paths],
        )
        return Lease(
            number,
            run.number,
            epoch,
            run.root,
            run.shards,
            run.seed,
            directories=(),
            include_root=False,
            whole=False,
            names=tuple(paths),
            pacing=self.pacing(run.dataset),
            dataset=run.dataset,
        )

    def commit_lease(self, number: int, role: str, epoch: int, result: LeaseResult) -> int | None:
        """Make a lease's segments exist and its frontier pending.

        Returns the run if its scan has ended with this lease.
        """
        with self.transaction() as db:
            self.check_epoch(role, epoch)
            row = db.execute("SELECT run, state FROM leases WHERE number = ?", (number,)).fetchone()
            if row is None or row["state"] != "open":
                raise LeaseLost(number, row["state"] if row else "unknown")
            run: int = row["run"]
            db.executemany(
                "INSERT INTO segments"
                " (run, lease, name, epoch, size_bytes, checksum, rows, counts, whole)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        run,
                        number,
                        info.name,
                        info.epoch,
                        info.size_bytes,
                        info.checksum,
                        info.rows,
                        info.counts_json(),
                        result.whole,
                    )
                    for info in result.segments
                ],
            )
            db.execute("DELETE FROM directories WHERE lease = ?", (number,))
            db.execute("UPDATE names SET state = 'done', lease = NULL WHERE lease = ?", (number,))
            db.executemany(
                "INSERT INTO directories (run, target, path, cookie, device, inode, first, whole)"
                " VALUES (?, ?, ?, ?, ?, ?, 0, ?)",
                [
                    (
                        run,
                        d.target,
                        d.path,
                        _signed(d.cookie),
                        _signed(d.device),
                        _signed(d.inode),
                        result.whole,
                    )
                    for d in result.frontier
                ],
            )
            db.execute("UPDATE leases SET state = 'done' WHERE number = ?", (number,))
            db.execute(
                "INSERT INTO scan VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    number,
                    run,
                    result.inodes,
                    result.directories,
                    result.size_bytes,
                    result.errors,
                    result.mount_points,
                ),
            )
            lease_committed(db, run, number, result.inodes, result.size_bytes)
            return run if _check_scan_ended(db, run) else None

    def look_also(self, run: int, names: Iterable[bytes]) -> int:
        """Add names that a run is to look at; return how many it did not have yet."""
        with self.transaction() as db:
            before = db.total_changes
            look_at(db, run, names, ())
            added = db.total_changes - before
            if added:
                db.execute("UPDATE runs SET scan_ended = NULL WHERE number = ?", (run,))
        return added

    def scope(self, run: int, table: Literal["names", "subtrees"]) -> list[bytes]:
        """Return the names or subtrees that a run looks at, ascending."""
        return [row[0] for row in self.query(f"SELECT path FROM {table} WHERE run = ?", (run,))]

    def segments(self, run: int, after: int = 0, *, whole: bool = False) -> list[SegmentInfo]:
        """Return committed segments of a run with a number above after, a page at most.

        whole leaves out those that a look at changes gave before the run looked everywhere.
        """
        rows = self.query(
            "SELECT * FROM segments WHERE run = ? AND number > ? AND whole >= ?"
            " ORDER BY number LIMIT ?",
            (run, after, int(whole), SEGMENTS_PAGE_MAX),
        )
        return [
            SegmentInfo(
                row["name"],
                row["epoch"],
                row["size_bytes"],
                row["checksum"],
                row["rows"],
                SegmentInfo.counts_from_json(row["counts"]),
                row["number"],
            )
            for row in rows
        ]

    def scan_totals(self, run: int) -> ScanTotals:
        row = self._first(
            "SELECT COALESCE(SUM(inodes), 0), COALESCE(SUM(directories), 0),"
            " COALESCE(SUM(bytes), 0), COALESCE(SUM(errors), 0), COALESCE(SUM(mount_points), 0)"
            " FROM scan WHERE run = ?",
            (run,),
        )
        assert row is not None, "an aggregate has one row"
        return ScanTotals(*row)


def _look_everywhere(db: sqlite3.Connection, run: int) -> None:
    db.execute(
        "INSERT INTO directories (run, target, path, cookie, device, inode, first, whole)"
        " VALUES (?, 0, x'', 0, 0, 0, 1, 1)",
        (run,),
    )


def look_at(
    db: sqlite3.Connection, run: int, names: Iterable[bytes], subtrees: Iterable[bytes]
) -> None:
    """Note what a run is to look at: names, and subtrees with all that is below them."""
    db.executemany(
        "INSERT OR IGNORE INTO names (run, path, state) VALUES (?, ?, 'free')",
        [(run, name) for name in (*names, *subtrees)],
    )
    for path in subtrees:
        db.execute("INSERT OR IGNORE INTO subtrees VALUES (?, ?)", (run, path))
        db.execute(
            "INSERT INTO directories (run, target, path, cookie, device, inode, first, whole)"
            " VALUES (?, 0, ?, 0, 0, 0, 0, 0)",
            (run, path),
        )


def _new_lease(db: sqlite3.Connection, run: int, role: str, epoch: int) -> int:
    number = db.execute(
        "INSERT INTO leases (run, role, epoch, state) VALUES (?, ?, ?, 'open')", (run, role, epoch)
    ).lastrowid
    assert number is not None
    lease_taken(db, number)
    return number


def _check_scan_ended(db: sqlite3.Connection, run: int) -> bool:
    # What is leased still has its row, so no row at all means nobody is walking.
    for table, where in (("directories", ""), ("names", " AND state = 'free'")):
        if db.execute(f"SELECT 1 FROM {table} WHERE run = ?{where} LIMIT 1", (run,)).fetchone():
            return False
    db.execute(
        "UPDATE runs SET scan_ended = COALESCE(scan_ended, ?) WHERE number = ?", (time.time(), run)
    )
    return True


def _dataset(row: sqlite3.Row) -> Dataset:
    return Dataset(
        row["name"],
        row["filesystem"],
        row["root"],
        row["shards"],
        _unsigned(row["seed"]),
        row["created"],
    )


def _run(row: sqlite3.Row) -> Run:
    return Run(
        row["number"],
        row["dataset"],
        row["root"],
        row["shards"],
        _unsigned(row["seed"]),
        row["level"],
        RunState(row["state"]),
        row["scan_ended"],
        row["started"],
        row["ended"],
        row["reason"],
        _position(row["position"]),
        _position(row["since"]),
        row["note"],
        row["margin_ns"],
        row["merkle"],
    )


def _position(text: str | None) -> Position | None:
    return Position.from_json(text) if text else None
