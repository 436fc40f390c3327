"""The files that a run ledger is in: an empty one, its copy, one that is made from the copy.

Covers: each appears under its name in one step and is durable then; numbers and epochs of a lost
ledger are not used again; a copy blocks no writer and takes a bounded time.
Does not cover: whose state directory it is (ledger_home), the operations (ledger).
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from shards.errors import ForebayError
from shards.files import flush_directory
from shards.ledger_schema import (
    HSM_TABLE,
    IMPORTED_TABLE,
    LEDGER_VERSION,
    PACING_TABLE,
    SNAPSHOTS_TABLES,
    TABLES,
)

COPY_PAGES = 1_024  # of 4 KiB, in one step
COPY_MAX_S = 600.0
BUSY_TIMEOUT_S = 30.0
IDENTITY_BYTES = 8
# More epochs than can have been taken since any copy that is still of use.
EPOCHS_SKIPPED = 1 << 20


class LedgerCopyFailed(ForebayError):
    """The state directory has no new copy: (ledger, copy, why)."""

    template = (
        "the run ledger {0} could not be copied to {1}: {2}; the copy before it is as it was."
        " Backups are right without it, and the next run copies it again"
    )


class LedgerCopyDamaged(ForebayError):
    """A lost ledger cannot be taken from its copy: (copy, why)."""

    template = (
        "the copy {0} of the run ledger cannot be used: {1}; move it away to start anew with full"
        " backups"
    )


@dataclass(frozen=True, slots=True)
class LedgerMark:
    """Which ledger a file is, and how often that had been copied."""

    identity: str
    copies: int


def new_identity() -> str:
    """Return a name that no other ledger has."""
    return secrets.token_hex(IDENTITY_BYTES)


def newest_run_folder(runs: Path) -> int:
    """Return the newest run that left files; 0 if there is none."""
    names = os.listdir(runs) if runs.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def complete_tables(db: sqlite3.Connection) -> None:
    """Add what ledgers of the same version did not have at first."""
    for table in (PACING_TABLE, HSM_TABLE, *SNAPSHOTS_TABLES, IMPORTED_TABLE):
        db.execute(table)
    db.execute("INSERT OR IGNORE INTO meta VALUES ('identity', ?)", (new_identity(),))
    db.execute("INSERT OR IGNORE INTO meta VALUES ('copies', '0')")


def make_empty(path: Path, runs: Path, identity: str | None = None) -> None:
    """Make an empty ledger under its name in one step: readers never see half of it.

    The runs that left folders are those of a ledger that was lost: their numbers are not used
    again, nor are epochs that may still be held.
    """
    newest = newest_run_folder(runs)
    draft = _draft(path)
    with closing(sqlite3.connect(draft, isolation_level=None)) as db:
        db.executescript(
            f"BEGIN; {TABLES} INSERT INTO meta VALUES ('version', '{LEDGER_VERSION}');"
            f" INSERT INTO sqlite_sequence VALUES ('runs', {newest}); COMMIT;"
        )
        meta = {"identity": identity or new_identity()}
        if newest:
            meta["epoch_floor"] = str(int(time.time()))
        db.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
        db.execute("PRAGMA journal_mode = WAL")
    _publish(draft, path)


def copy_ledger(
    ledger: Path, copy: Path, tick: Callable[[], None] = lambda: None, max_s: float = COPY_MAX_S
) -> None:
    """Copy a ledger that may be written meanwhile; tick is called between steps, and may raise."""
    draft = _draft(copy)
    deadline = time.monotonic() + max_s

    def step(_status: int, _remaining: int, _total: int) -> None:
        tick()
        if time.monotonic() > deadline:
            raise LedgerCopyFailed(str(ledger), str(copy), f"it took more than {max_s:g} s")

    try:
        with closing(_connect(ledger, "rw")) as source, closing(_connect(draft, "rw")) as target:
            source.execute(
                "UPDATE meta SET value = CAST(value AS INTEGER) + 1 WHERE key = 'copies'"
            )
            # A reader's view of the whole copy: without it each commit would start it anew.
            source.execute("BEGIN")
            source.execute("SELECT 1 FROM meta").fetchone()
            source.backup(target, pages=COPY_PAGES, progress=step)
            source.execute("COMMIT")
            # Without a write-ahead log it is one file, which any node can read.
            target.execute("PRAGMA journal_mode = DELETE")
        _publish(draft, copy)
    except (OSError, sqlite3.Error) as error:
        raise LedgerCopyFailed(str(ledger), str(copy), str(error)) from error
    finally:
        draft.unlink(missing_ok=True)


def take_copy(copy: Path, path: Path, tick: Callable[[], None] = lambda: None) -> None:
    """Make a lost ledger from its copy, which may lack its newest runs; skip_runs() follows."""
    draft = _draft(path)
    try:
        with (
            closing(_connect(copy, "ro", immutable=True)) as source,
            closing(_connect(draft, "rw")) as target,
        ):
            source.backup(target, pages=COPY_PAGES, progress=lambda *_: tick())
            problem = target.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if problem != "ok":
                raise LedgerCopyDamaged(str(copy), problem)
            _check_version(target, copy)
            _skip_epochs(target)
            target.execute("PRAGMA journal_mode = WAL")
    except (sqlite3.Error, OSError) as error:
        raise LedgerCopyDamaged(str(copy), str(error)) from error
    tick()
    _publish(draft, path)


def read_mark(path: Path, *, is_copy: bool) -> LedgerMark | None:
    """Return which ledger a file is; None if it is of before ledgers had identities."""
    try:
        with closing(_connect(path, "ro", immutable=is_copy)) as db:
            meta = dict(db.execute("SELECT key, value FROM meta").fetchall())
        return LedgerMark(meta["identity"], int(meta["copies"]))
    except KeyError:
        return None
    except (sqlite3.Error, ValueError) as error:
        raise LedgerCopyDamaged(str(path), str(error)) from error


def skip_runs(db: sqlite3.Connection, newest: int) -> None:
    """Let the next run have a number above this one."""
    db.execute("UPDATE sqlite_sequence SET seq = MAX(seq, ?) WHERE name = 'runs'", (newest,))


def _skip_epochs(db: sqlite3.Connection) -> None:
    """Fence whoever took an epoch of the lost ledger, and whatever it held."""
    newest = db.execute("SELECT COALESCE(MAX(epoch), 0) FROM roles").fetchone()[0]
    floor = db.execute("SELECT value FROM meta WHERE key = 'epoch_floor'").fetchone()
    skipped = max(newest, int(floor[0]) if floor else 0) + EPOCHS_SKIPPED
    db.execute("BEGIN IMMEDIATE")
    db.execute("UPDATE roles SET epoch = ?", (skipped,))
    db.execute("INSERT OR REPLACE INTO meta VALUES ('epoch_floor', ?)", (str(skipped),))
    db.execute("COMMIT")


def _check_version(db: sqlite3.Connection, path: Path) -> None:
    row = db.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
    if row is None or row[0] != str(LEDGER_VERSION):
        raise LedgerCopyDamaged(str(path), "it has another version")


def _connect(path: Path, mode: str, *, immutable: bool = False) -> sqlite3.Connection:
    uri = f"{path.absolute().as_uri()}?mode={mode}{'&immutable=1' if immutable else ''}"
    return sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)


def _draft(path: Path) -> Path:
    """Return an empty file beside the path; whoever died over it held the same lock."""
    draft = path.with_name(f".{path.name}.new")
    draft.unlink(missing_ok=True)
    _remove_logs(draft)
    os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    return draft


def _publish(draft: Path, path: Path) -> None:
    descriptor = os.open(draft, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    _remove_logs(path)  # of a lost file: SQLite would take them for this one's
    os.rename(draft, path)
    flush_directory(path.parent)


def _remove_logs(path: Path) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
