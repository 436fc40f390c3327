"""The changelog of one metadata target, as one consumer reads it.

Covers: reading on from where the log stands, telling whether records are missing, clearing.
Does not cover: what records mean (looks), keeping it (log).

A starting point that was purged is no error of the interface: delivery begins at what is left. And
a metadata server that crashed may use indexes again that were read before. So the newest record
that was read stays in the changelog as an anchor: cleared is up to the one before it. Reading
begins at the anchor, which has to be there, the same record; then nothing between it and the
next one was purged, and nothing up to it was rolled back. Killed between "durable here" and
"cleared", the anchor is still right, only more is purged next time.

Only a consumer's first clearing goes up to the newest record itself: the id is refused below the
place where it was registered, which no client can ask for. Then the next record may follow at once.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain

from filesystems.lustre.api import Library
from filesystems.lustre.errors import (
    ChangelogEndless,
    ConsumerGone,
    LustreFailed,
    RecordMalformed,
    RolledBack,
)
from filesystems.lustre.records import Record, decode
from shards.errors import ForebayError

BATCH_RECORDS_MAX = 65_536
# Records that come faster than they are read would never end.
DRAIN_RECORDS_MAX = 200_000_000


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a changelog was left; it is as durable as the places of the records before it."""

    index: int = 0  # of the newest record that was read; 0: none ever was
    anchor: bytes = b""  # what tells that record from another one with its index
    cleared: int = 0  # up to here we said that we need nothing; 0: never
    is_begun: bool = False  # it was read before, even if nothing was in it


@dataclass(frozen=True, slots=True)
class Drained:
    """A batch of records, and where the changelog stands behind it."""

    records: list[Record]
    cursor: Cursor
    lost: str = ""  # why changes before this batch may be missing


class Changelog:
    """Reads and clears."""

    def __init__(self, library: Library, target: str, consumer: str) -> None:
        self.target = target
        self.consumer = consumer
        self._library = library

    def drain(self, cursor: Cursor) -> Generator[Drained, None, None]:
        """Yield all records behind a cursor, as they are to be made durable; to be closed."""
        lost = "is read for the first time"
        if cursor.is_begun:
            with closing(self._read(cursor.index)) as batches:
                begin = next(batches, [])
                lost = self._missing(cursor, begin)
                if not lost:
                    if begin and cursor.index and decode(begin[0]).number == cursor.index:
                        del begin[0]
                    yield from self._drained(chain([begin], batches), cursor)
                    return
        # What is left goes into a log that begins anew.
        cursor = Cursor(is_begun=True)
        yield Drained([], cursor, f"the changelog of {self.target} {lost}")
        with closing(self._read(0)) as batches:
            yield from self._drained(batches, cursor)

    def _missing(self, cursor: Cursor, begin: list[bytes]) -> str:
        """Say what is wrong with what is delivered from the cursor on."""
        if not cursor.index:
            return ""  # it was empty; whether the consumer is still there, clearing tells
        if not begin:
            is_kept = cursor.index > cursor.cleared > 0
            return f"has no record {cursor.index} any more" if is_kept else ""
        index = decode(begin[0]).number
        if index == cursor.index:
            return "" if _anchor(begin[0]) == cursor.anchor else f"has another record {index}"
        # The anchor may be purged by nobody but us, by a consumer's first clearing.
        if index == cursor.index + 1 and cursor.cleared in (0, cursor.index):
            return ""
        direction = "jumps" if index > cursor.index else "goes back"
        return f"{direction} from record {cursor.index} to {index}"

    def _drained(self, batches: Iterable[list[bytes]], cursor: Cursor) -> Iterator[Drained]:
        count = 0
        for batch in batches:
            if not batch:
                continue
            records = [decode(data) for data in batch]
            lost, index = "", cursor.index
            for record in records:
                if record.number <= index:
                    lost = f"the changelog of {self.target} goes back from record {index}"
                index = record.number
            cursor = replace(cursor, index=index, anchor=_anchor(batch[-1]))
            yield Drained(records, cursor, lost)
            count += len(records)
            if count > DRAIN_RECORDS_MAX:
                raise ChangelogEndless(self.target, count)

    def _read(self, first: int) -> Generator[list[bytes], None, None]:
        """Yield batches of records; those that were read before an error come first."""
        with self._library.changelog(self.target, first) as opened:
            more = True
            while more:
                found: list[bytes] = []
                failure: ForebayError | None = None
                try:
                    more = opened.read(BATCH_RECORDS_MAX, found)
                except (LustreFailed, RecordMalformed) as error:
                    failure = error
                yield found
                if failure is not None:
                    raise failure

    def clear(self, cursor: Cursor) -> Cursor:
        """Let go of the records that are durable here; returns the cursor as it is then.

        Done also if there is nothing new to let go of: it tells whether the consumer still exists.
        And only from here on does Lustre record again that MTIME or CTIME of an object changed that
        has such a record. What changed since it was read is seen by whoever looks after this call.
        """
        last = max(cursor.cleared, cursor.index - 1 if cursor.cleared else cursor.index)
        if last == 0:
            return cursor
        try:
            self._library.clear(self.target, self.consumer, last)
        except LustreFailed as error:
            if error.errno == errno.ENOENT:
                raise ConsumerGone(self.consumer, self.target) from error
            if error.errno == errno.EINVAL:
                raise RolledBack(self.target, last) from error
            raise
        return replace(cursor, cleared=last)


def _anchor(data: bytes) -> bytes:
    """Return type, index, time and FIDs: the rest depends on what the library was asked for."""
    return data[4:16] + data[24:64]
