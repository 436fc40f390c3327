"""The change log: a set of places to look at, each with its newest sequence number.

Covers: the SQLite file STATE/changes/DATASET/log.sqlite, written by the one reader that holds the
lock beside it, read by any.
Does not cover: what goes in (looks, sieve), what comes of it (source).

A log is worth as much as its reader's life: once the reader has ended, changes are missed, and no
position of its session is ever answered again. So a new reader begins a new file, and commits are
not flushed to disk (synchronous = OFF): what a power failure could damage ended with it. In WAL
mode a process that is killed leaves every commit whole.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from filesystems.fanotify.errors import LogUnusable, ReaderBusy
from filesystems.fanotify.looks import Batch, Kind
from filesystems.log_file import BUSY_TIMEOUT_S, META_TABLE, LogFile
from shards.changes import Gap

LOG_NAME, LOCK_NAME = "log.sqlite", "lock"
LOG_VERSION = 1
# About thirty million places. Past that a scan is cheaper: the log begins anew.
LOG_BYTES_MAX = 2 << 30

_TABLES = """
CREATE TABLE looks (handle BLOB, name BLOB, kind INTEGER, sequence INTEGER, checksum INTEGER,
    PRIMARY KEY (handle, name, kind)) WITHOUT ROWID;
CREATE INDEX looks_by_sequence ON looks (sequence);
CREATE TABLE unclosed (inode INTEGER PRIMARY KEY);
CREATE TABLE mounts (path BLOB PRIMARY KEY, sequence INTEGER, checksum INTEGER) WITHOUT ROWID;
"""


@dataclass(frozen=True, slots=True)
class LogHead:
    """Whose log it is, and from where on it is whole."""

    dataset: str
    root: bytes
    session: str
    started: float
    sequence: int = 0  # of the newest position given
    oldest: int = 0  # positions before this sequence cannot be answered
    oldest_reason: str = ""


class LoggedLook(NamedTuple):
    """A row."""

    handle: bytes
    name: bytes
    kind: Kind


def _checksum(sequence: int, kind: int, *parts: bytes) -> int:
    checksum = zlib.crc32(b"%d %d" % (sequence, kind))
    for part in parts:
        checksum = zlib.crc32(part, zlib.crc32(b"%d " % len(part), checksum))
    return checksum


def take_lock(folder: Path, dataset: str) -> int:
    """Become the only reader of a dataset until the returned descriptor is closed."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LogUnusable(str(folder), error.strerror) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise ReaderBusy(dataset) from error
    return lock


class ChangeLog(LogFile):
    """The log as its reader has it: one transaction per batch."""

    def __init__(self, folder: Path, head: LogHead, bytes_max: int = LOG_BYTES_MAX) -> None:
        self._bytes_max = bytes_max
        path = folder / LOG_NAME
        try:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        except OSError as error:
            raise LogUnusable(str(path), error.strerror) from error
        super().__init__(path, LogUnusable)
        with self._using():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = OFF")
            self._db.execute("PRAGMA temp_store = MEMORY")
            self._db.executescript(f"BEGIN; {META_TABLE}; {_TABLES} COMMIT;")
            with self._transaction():
                self._set(
                    version=LOG_VERSION,
                    dataset=head.dataset,
                    root=head.root,
                    session=head.session,
                    started=head.started,
                    sequence=0,
                    oldest=0,
                    oldest_reason="",
                )

    def add(self, batch: Batch, sequence: int) -> None:
        """Add what a batch found; places that are there already get the newer sequence."""
        with self._transaction():
            self._db.executemany(
                "DELETE FROM looks WHERE handle = ?", [(handle,) for handle in batch.gone]
            )
            self._db.executemany(
                "REPLACE INTO looks VALUES (?, ?, ?, ?, ?)",
                (
                    (handle, name, kind, number, _checksum(number, kind, handle, name))
                    for handle, places in batch.found.items()
                    for (name, kind), (number, _) in places.items()
                ),
            )
        if self._size_bytes() > self._bytes_max:
            self.lose(sequence, "there were more changes than the change log takes")

    def lose(self, sequence: int, reason: str) -> None:
        """Begin anew: positions before this sequence cannot be answered any more."""
        with self._transaction():
            self._db.execute("DELETE FROM looks")
            self._db.execute("DELETE FROM mounts")
            self._set(oldest=sequence, oldest_reason=reason)

    def forget(self, sequence: int) -> None:
        """Drop what no position from this sequence on needs."""
        with self._transaction():
            oldest = self._get("oldest")
            assert isinstance(oldest, int)
            if sequence <= oldest:
                return
            self._db.execute("DELETE FROM looks WHERE sequence <= ?", (sequence,))
            self._db.execute("DELETE FROM mounts WHERE sequence <= ?", (sequence,))
            self._set(oldest=sequence, oldest_reason="older changes were pruned")

    def arrive(self, sequence: int, unclosed: Iterable[int] | None) -> None:
        """Note that a position was given, and the inodes that are written to without events."""
        with self._transaction():
            self._set(sequence=sequence)
            if unclosed is None:
                return
            self._db.execute("DELETE FROM unclosed")
            self._db.executemany(
                "INSERT INTO unclosed VALUES (?)", [(_signed(i),) for i in unclosed]
            )

    def add_mounts(self, paths: Sequence[bytes], sequence: int) -> None:
        """Add places, relative to the root, that something was mounted on or unmounted from."""
        with self._transaction():
            self._db.executemany(
                "REPLACE INTO mounts VALUES (?, ?, ?)",
                [(path, sequence, _checksum(sequence, 0, path)) for path in paths],
            )


class LogReader:
    """The log as anybody else has it: one moment of it, from opening to closing."""

    def __init__(self, folder: Path, dataset: str, session: str, sequence: int) -> None:
        self._path = folder / LOG_NAME
        with self._reading():
            self._db = sqlite3.connect(
                f"{self._path.absolute().as_uri()}?mode=ro",
                uri=True,
                timeout=BUSY_TIMEOUT_S,
                isolation_level=None,
            )
            try:
                self._db.execute("BEGIN")
                self.head = self._read_head()
                if self.head.dataset != dataset:
                    raise Gap(f"the change log {self._path} is one of {self.head.dataset}")
                if self.head.session != session or self.head.sequence < sequence:
                    raise Gap(f"the change log {self._path} is not what the change reader writes")
            except BaseException:
                self._db.close()
                raise

    def _read_head(self) -> LogHead:
        meta = dict(self._db.execute("SELECT key, value FROM meta"))
        if meta.get("version") != LOG_VERSION:
            raise Gap(f"the change log {self._path} has version {meta.get('version')}")
        del meta["version"]
        return LogHead(**meta)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OverflowError, TypeError) as error:
            raise Gap(f"the change log {self._path} cannot be read: {error}") from error

    def inodes(self, since: int) -> Iterator[bytes]:
        """Yield the handles of inodes whose names are to be looked at."""
        for look in self._looks(since, f"kind = {Kind.INODE:d}"):
            yield look.handle

    def places(self, since: int) -> Iterator[LoggedLook]:
        """Yield the places of all other kinds, those of a directory together."""
        yield from self._looks(since, f"kind != {Kind.INODE:d}")

    def _looks(self, since: int, condition: str) -> Iterator[LoggedLook]:
        with self._reading():
            for handle, name, kind, sequence, checksum in self._db.execute(
                "SELECT handle, name, kind, sequence, checksum FROM looks"
                f" WHERE sequence > ? AND {condition} ORDER BY handle, name, kind",
                (since,),
            ):
                if _checksum(sequence, kind, handle, name) != checksum:
                    raise Gap(f"the change log {self._path} is damaged")
                yield LoggedLook(handle, name, Kind(kind))

    def unclosed(self) -> list[int]:
        """Return the inodes that were being written to without events."""
        with self._reading():
            return [i & ((1 << 64) - 1) for (i,) in self._db.execute("SELECT inode FROM unclosed")]

    def mounts(self, since: int) -> list[bytes]:
        """Return the places where something was mounted or unmounted."""
        found = []
        with self._reading():
            for path, sequence, checksum in self._db.execute(
                "SELECT path, sequence, checksum FROM mounts WHERE sequence > ?", (since,)
            ):
                if _checksum(sequence, 0, path) != checksum:
                    raise Gap(f"the change log {self._path} is damaged")
                found.append(path)
        return found

    def count(self) -> int:
        """Return how many places the log holds."""
        with self._reading():
            return int(self._db.execute("SELECT count(*) FROM looks").fetchone()[0])

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def new_head(dataset: str, root: bytes, session: str) -> LogHead:
    """Make the head of a log that begins now."""
    return LogHead(dataset, root, session, time.time())


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
