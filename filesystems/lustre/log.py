"""The change log: a set of places to look at, each with its newest sequence number.

Covers: the SQLite file STATE/changes/DATASET/lustre.sqlite and the lock of its one writer.
Does not cover: what goes in (looks), what comes of it (source).

Records are cleared on the metadata targets once they are in here, so this file is the only copy of
what changed: it outlives its writer, and every commit is on disk when it returns (synchronous =
FULL). The places of a batch and the cursor behind it are one transaction. All rows of a drain have
the sequence that the next position gets.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from filesystems.log_file import META_TABLE, LogFile
from filesystems.lustre.changelog import Cursor
from filesystems.lustre.errors import LogBusy, LogUnusable
from filesystems.lustre.looks import Batch, Kind

LOG_NAME, LOCK_NAME = "lustre.sqlite", "lustre.lock"
LOG_VERSION = 1
# About twenty million places. Past that a scan is cheaper: the log begins anew.
LOG_BYTES_MAX = 4 << 30
# Small ones make a reading of a million records three times as long.
CACHE_BYTES, CHECKPOINT_PAGES = 128 << 20, 16_384
LOCK_TIMEOUT_S, LOCK_POLL_S = 60.0, 0.05

_TABLES = """
CREATE TABLE looks (fid BLOB, name BLOB, kind INTEGER, about BLOB NOT NULL, sequence INTEGER,
    checksum INTEGER,
    PRIMARY KEY (fid, name, kind)) WITHOUT ROWID;
CREATE INDEX looks_by_sequence ON looks (sequence);
CREATE TABLE cursors (target TEXT PRIMARY KEY, position INTEGER, anchor BLOB, cleared INTEGER,
    is_begun INTEGER) WITHOUT ROWID;
"""
# Two different FIDs that a TREE is about make it one whatever those are.
_ADD = """
INSERT INTO looks VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (fid, name, kind) DO UPDATE SET
    about = iif(about = excluded.about, about, x''), sequence = excluded.sequence,
    checksum = checksum(excluded.sequence, kind, fid, name,
        iif(about = excluded.about, about, x''))
"""


class LoggedLook(NamedTuple):
    """A row."""

    fid: bytes
    name: bytes
    kind: Kind
    about: bytes


def _checksum(sequence: int, kind: int, *parts: bytes) -> int:
    return zlib.crc32(b"%d %d %d %d " % (sequence, kind, *map(len, parts[:2])) + b"".join(parts))


def _rows(batch: Batch, sequence: int) -> Iterator[tuple[object, ...]]:
    """Yield rows in the order of the table, which then is written from its beginning to its end."""
    for (fid, name, kind), about in sorted(batch.places.items()):
        checksum = _checksum(sequence, kind, fid, name, about)
        yield fid, name, kind, about, sequence, checksum
    for fid in sorted(batch.inodes):
        checksum = _checksum(sequence, Kind.INODE, fid, b"", b"")
        yield fid, b"", int(Kind.INODE), b"", sequence, checksum


@contextmanager
def locked(folder: Path, timeout_s: float = LOCK_TIMEOUT_S) -> Iterator[None]:
    """Be the only writer of a log. flock itself would wait for ever, or not at all."""
    path = folder / LOCK_NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogUnusable(str(path), error.strerror) from error
    try:
        end = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() >= end:
                    raise LogBusy(str(folder), timeout_s) from error
            time.sleep(LOCK_POLL_S)
        yield
    finally:
        os.close(lock)


class ChangeLog(LogFile):
    """The log of a dataset, opened by whoever holds the lock."""

    def __init__(self, folder: Path, identity: str, bytes_max: int = LOG_BYTES_MAX) -> None:
        """Open the log; one of another identity is replaced by a new one."""
        super().__init__(folder / LOG_NAME, LogUnusable)
        self._bytes_max = bytes_max
        with self._using():
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute(f"PRAGMA cache_size = -{CACHE_BYTES >> 10}")
                self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
                self._db.create_function("checksum", 5, _checksum, deterministic=True)
                if self._identity() != (LOG_VERSION, identity):
                    self._begin(identity)
                self.session = str(self._get("session"))
            except BaseException:
                self._db.close()
                raise

    def _identity(self) -> tuple[object, object] | None:
        if not self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return None
        return self._get("version"), self._get("identity")

    def _begin(self, identity: str) -> None:
        tables = [
            row[0]
            for row in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        with self._transaction():
            for table in tables:
                self._db.execute(f"DROP TABLE {table}")
            for statement in (META_TABLE, *_TABLES.split(";")):
                self._db.execute(statement)
            self._set(
                version=LOG_VERSION,
                identity=identity,
                session=os.urandom(8).hex(),
                sequence=0,
                oldest=0,
                oldest_reason="",
            )

    def _number(self, key: str) -> int:
        with self._using():
            value = self._get(key)
        if not isinstance(value, int):
            raise LogUnusable(str(self._path), f"it has no {key}")
        return value

    @property
    def sequence(self) -> int:
        """Return the sequence of the newest position given."""
        return self._number("sequence")

    @property
    def oldest(self) -> tuple[int, str]:
        """Return from which sequence on positions can be answered, and why not before."""
        with self._using():
            reason = self._get("oldest_reason")
        return self._number("oldest"), str(reason)

    def cursor(self, target: str) -> Cursor:
        """Return where the changelog of a target was left."""
        with self._using():
            row = self._db.execute(
                "SELECT position, anchor, cleared, is_begun FROM cursors WHERE target = ?",
                (target,),
            ).fetchone()
        if row is None:
            return Cursor()
        index, anchor, cleared, is_begun = row
        return Cursor(index, anchor, cleared, bool(is_begun))

    def add(self, batch: Batch, target: str, cursor: Cursor) -> None:
        """Add what a batch found, and where its changelog stands behind it."""
        sequence = self.sequence + 1
        with self._transaction():
            self._db.executemany(_ADD, _rows(batch, sequence))
            self._keep(target, cursor)
        if self._size_bytes() > self._bytes_max:
            self.lose("there were more changes than the change log takes")

    def _keep(self, target: str, cursor: Cursor) -> None:
        self._db.execute(
            "REPLACE INTO cursors VALUES (?, ?, ?, ?, ?)",
            (target, cursor.index, cursor.anchor, cursor.cleared, cursor.is_begun),
        )

    def keep(self, target: str, cursor: Cursor) -> None:
        """Note how a changelog was cleared."""
        with self._transaction():
            self._keep(target, cursor)

    def lose(self, reason: str, target: str = "", cursor: Cursor | None = None) -> None:
        """Begin anew: no position that was given so far can be answered any more."""
        self._drop(self.sequence + 1, reason, target, cursor)

    def forget(self, sequence: int) -> None:
        """Drop what no position from this sequence on needs."""
        if sequence > self.oldest[0]:
            self._drop(sequence, "older changes were pruned")

    def _drop(
        self, sequence: int, reason: str, target: str = "", cursor: Cursor | None = None
    ) -> None:
        with self._transaction():
            self._db.execute("DELETE FROM looks WHERE sequence <= ?", (sequence,))
            if self._get("oldest") != sequence or not self._get("oldest_reason"):
                self._set(oldest=sequence, oldest_reason=reason)
            if cursor is not None:
                self._keep(target, cursor)

    def arrive(self) -> int:
        """Take the next sequence for a position."""
        sequence = self.sequence + 1
        with self._transaction():
            self._set(sequence=sequence)
        return sequence

    def count(self, since: int) -> int:
        """Return how many places have a newer sequence."""
        with self._using():
            row = self._db.execute("SELECT count(*) FROM looks WHERE sequence > ?", (since,))
            return int(row.fetchone()[0])

    def looks(self, since: int) -> Iterator[LoggedLook]:
        """Yield the places with a newer sequence, those of a directory together."""
        with self._using():
            for fid, name, kind, about, sequence, checksum in self._db.execute(
                "SELECT fid, name, kind, about, sequence, checksum FROM looks"
                " WHERE sequence > ? ORDER BY fid, name, kind",
                (since,),
            ):
                if _checksum(sequence, kind, fid, name, about) != checksum:
                    raise LogUnusable(str(self._path), "it is damaged")
                yield LoggedLook(fid, name, Kind(kind), about)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
