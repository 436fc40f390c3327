"""The change log: a set of places to look at, each with its newest sequence number.

Covers: the SQLite file STATE/changes/DATASET/lustre.sqlite and the lock of its one writer.
Does not cover: what goes in (looks), what comes of it (source).

Records are cleared on the metadata targets once they are in here, so this file is the only copy of
what changed: it outlives its writer, and every commit is on disk when it returns (synchronous =
FULL). The places that were gathered are blocks of bytes, which with the cursor behind them are one
transaction. All places of a drain have the sequence that the next position gets.

Several blocks may have the same place. Whoever asks puts them together in memory; so does the
writer, when so many bytes have come since it last did (a fold). A fold keeps what a position can
still be answered with: those behind which more than CHANGES_MAX places changed never can be.
"""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from filesystems.log_file import META_TABLE, LogFile
from filesystems.lustre.changelog import Cursor
from filesystems.lustre.errors import BlockMalformed, LogBusy, LogUnusable
from filesystems.lustre.kernel.native import Places
from shards.changes import CHANGES_MAX

LOG_NAME, LOCK_NAME = "lustre.sqlite", "lustre.lock"
LOG_VERSION = 2
# What all blocks may have; a fold puts them in memory. Past that the log begins anew.
LOG_BYTES_MAX = 1 << 30
# A fold writes as much as all places have, so it is worth some new ones: about a million.
FOLD_BYTES = 48 << 20
PAGE_BYTES, CHECKPOINT_PAGES = 16_384, 4_096
LOCK_TIMEOUT_S, LOCK_POLL_S = 60.0, 0.05

_TABLES = """
CREATE TABLE blocks (number INTEGER PRIMARY KEY, newest INTEGER NOT NULL, places INTEGER NOT NULL,
    is_folded INTEGER NOT NULL, checksum INTEGER NOT NULL, data BLOB NOT NULL);
CREATE TABLE cursors (target TEXT PRIMARY KEY, position INTEGER, anchor BLOB, cleared INTEGER,
    is_begun INTEGER) WITHOUT ROWID;
"""


def _checksum(newest: int, places: int, data: bytes | memoryview) -> int:
    return zlib.crc32(data, zlib.crc32(b"%d %d " % (newest, places)))


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
                self._db.execute(f"PRAGMA page_size = {PAGE_BYTES}")  # of a new file
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute("PRAGMA synchronous = FULL")
                self._db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
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

    def add(self, places: Places, target: str, cursor: Cursor) -> None:
        """Add places, which are freed, and where the changelog stands behind their records."""
        sequence = self.sequence + 1
        with self._transaction():
            # Where all positions so far are lost, nobody asks for what comes before the next one.
            if self._get("oldest") != sequence:
                self._write(places, 0, sequence, is_folded=False)
            self._keep(target, cursor)
        places.free()  # before a fold takes as much
        folded, unfolded = self._bytes()
        if unfolded > FOLD_BYTES:
            self._fold()
        if folded + unfolded > self._bytes_max and sum(self._bytes()) > self._bytes_max:
            self.lose("there were more changes than the change log takes")

    def _write(self, places: Places, since: int, sequence: int, *, is_folded: bool) -> None:
        for block in places.blocks(since, sequence):
            self._db.execute(
                "INSERT INTO blocks (newest, places, is_folded, checksum, data)"
                " VALUES (?, ?, ?, ?, ?)",
                (
                    block.newest,
                    block.count,
                    is_folded,
                    _checksum(block.newest, block.count, block.data),
                    block.data,
                ),
            )

    def _bytes(self) -> tuple[int, int]:
        """Return how large all folded blocks are, and all others."""
        with self._using():
            sizes = dict(
                self._db.execute(
                    "SELECT is_folded, sum(length(data)) FROM blocks GROUP BY is_folded"
                )
            )
        return sizes.get(1, 0), sizes.get(0, 0)

    def _fold(self) -> None:
        """Have each place once, and none that no position can be answered with."""
        too_many = f"more than {CHANGES_MAX:,} names changed: a scan costs less"
        places = self.places(self.oldest[0])
        sequence = places.newest(CHANGES_MAX)
        with self._transaction():
            self._db.execute("DELETE FROM blocks")
            self._write(places, sequence, 0, is_folded=True)
            if sequence:
                self._raise_oldest(sequence, too_many)

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
            self._db.execute("DELETE FROM blocks WHERE newest <= ?", (sequence,))
            self._raise_oldest(sequence, reason)
            if cursor is not None:
                self._keep(target, cursor)

    def _raise_oldest(self, sequence: int, reason: str) -> None:
        if self._get("oldest") != sequence or not self._get("oldest_reason"):
            self._set(oldest=sequence, oldest_reason=reason)

    def arrive(self) -> int:
        """Take the next sequence for a position."""
        sequence = self.sequence + 1
        with self._transaction():
            self._set(sequence=sequence)
        return sequence

    def places(self, since: int) -> Places:
        """Return the places with a newer sequence."""
        places = Places()
        with self._using():
            for newest, count, checksum, data in self._db.execute(
                "SELECT newest, places, checksum, data FROM blocks WHERE newest > ?", (since,)
            ):
                try:
                    if _checksum(newest, count, data) != checksum:
                        raise BlockMalformed(len(data), count)
                    places.load(data, count, since)
                except BlockMalformed as error:
                    raise LogUnusable(str(self._path), "it is damaged") from error
        return places

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
