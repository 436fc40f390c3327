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

A changelog that never had a record has no anchor, and nothing is recorded without a consumer: it
stays silent if that is gone. So each reading without any record, and the one that has the first
ones, says that changes may be missing.
"""

from __future__ import annotations

import errno
from collections.abc import Generator, Iterable
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
from filesystems.lustre.kernel.native import Records
from shards.errors import ForebayError

BATCH_RECORDS_MAX = 65_536
BATCH_BYTES_MAX = 16 << 20  # about 250 for each; of longer ones there are fewer in a batch
# Records that come faster than they are read would never end.
DRAIN_RECORDS_MAX = 200_000_000
# How often reading begins again where a record is missing between two.
HOLE_TRIES_MAX = 5


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

    records: Records
    cursor: Cursor
    lost: str = ""  # why changes before this batch may be missing


class Changelog:
    """Reads and clears."""

    def __init__(self, library: Library, target: str, consumer: str) -> None:
        self.target = target
        self.consumer = consumer
        self._library = library
        self._count = 0  # of records in this drain

    def drain(self, cursor: Cursor) -> Generator[Drained, None, None]:
        """Yield all records behind a cursor, as they are to be made durable; to be closed.

        Servers of 2.17 write records in parallel: for a moment one may be missing before a newer
        one. So reading stops before a hole, and begins again there a few times.
        """
        lost = "" if cursor.is_begun else "is read for the first time"
        self._count = tries = 0
        is_new = False
        while True:
            if lost:  # what is left goes into a log that begins anew
                if is_new:
                    raise RolledBack(self.target, cursor.index)
                cursor, is_new, tries = Cursor(is_begun=True), True, 0
                yield Drained(_none(), cursor, f"the changelog of {self.target} {lost}")
            before = cursor.index
            with closing(self._read(before)) as batches:
                begin = next(batches, _none()) or next(batches, _none())  # or what went wrong
                lost = self._missing(cursor, begin) if before or not is_new else ""
                is_hole = bool(lost) and 0 < before < _number(begin) and tries < HOLE_TRIES_MAX
                if lost and not is_hole:
                    continue
                if not lost:
                    if before and _number(begin) == before:
                        begin = begin.between(1, len(begin))
                    cursor, is_hole = yield from self._drained(
                        chain([begin], batches), cursor, before if tries == HOLE_TRIES_MAX else 0
                    )
            if not is_hole:
                return
            lost = ""
            tries = tries + 1 if cursor.index == before else 1

    def _missing(self, cursor: Cursor, begin: Records) -> str:
        """Say what is wrong with what is delivered from the cursor on."""
        if not cursor.index:
            if begin:
                first = _number(begin)
                return f"had no record before {first}, so whether one is missing cannot be told"
            number = int(self.target[-4:], 16)
            return (
                f"has had no record yet, so whether {self.consumer} still exists cannot be told;"
                f" make one there: `lfs mkdir -i {number} DIR/x && rmdir DIR/x`"
            )
        if not begin:
            is_kept = cursor.index > cursor.cleared > 0
            return f"has no record {cursor.index} any more" if is_kept else ""
        index = _number(begin)
        if index == cursor.index:
            return "" if _anchor(begin, 0) == cursor.anchor else f"has another record {index}"
        # The anchor may be purged by nobody but us, by a consumer's first clearing.
        if index == cursor.index + 1 and cursor.cleared in (0, cursor.index):
            return ""
        direction = "jumps" if index > cursor.index else "goes back"
        return f"{direction} from record {cursor.index} to {index}"

    def _drained(
        self, batches: Iterable[Records], cursor: Cursor, given_up: int
    ) -> Generator[Drained, None, tuple[Cursor, bool]]:
        """Yield what there is up to a hole; one behind the record given_up is passed, as a loss.

        Returns where the changelog stands then, and whether there is a hole.
        """
        for batch in batches:
            if not batch:
                continue
            lost, index, end = "", cursor.index, len(batch)
            at = batch.run_end(0, index)
            while at < end:
                before = _number(batch, at - 1) if at else index
                number = _number(batch, at)
                if number > before != given_up:
                    end = at
                    break
                direction = "jumps" if number > before else "goes back"
                lost = f"the changelog of {self.target} {direction} from record {before}"
                lost += f" to {number}"
                at = batch.run_end(at + 1, number)
            if end:
                cursor = replace(
                    cursor, index=_number(batch, end - 1), anchor=_anchor(batch, end - 1)
                )
                yield Drained(batch.between(0, end), cursor, lost)
            if end < len(batch):
                return cursor, True
            self._count += end
            if self._count > DRAIN_RECORDS_MAX:
                raise ChangelogEndless(self.target, self._count)
        return cursor, False

    def _read(self, first: int) -> Generator[Records, None, None]:
        """Yield batches of records; those that were read before an error come first."""
        with self._library.changelog(self.target, first) as opened:
            more = True
            while more:
                found = Records(BATCH_RECORDS_MAX, BATCH_BYTES_MAX)
                failure: ForebayError | None = None
                try:
                    more = opened.read(found)
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

        Where no record was ever read there is none to name, so all so far are let go of. Records
        that came since the drain are cleared unread by that. It is right only because that drain
        said that changes before it may be missing, so that the run looks at the whole tree, and
        does so after this call.
        """
        last = max(cursor.cleared, cursor.index - 1 if cursor.cleared else cursor.index)
        try:
            self._library.clear(self.target, self.consumer, last)
        except LustreFailed as error:
            if error.errno == errno.ENOENT:
                raise ConsumerGone(self.consumer, self.target) from error
            if error.errno == errno.EINVAL and last:
                raise RolledBack(self.target, last) from error
            raise
        return replace(cursor, cleared=last)


def _none() -> Records:
    return Records(1, 0)


def _number(records: Records, at: int = 0) -> int:
    """Return the number of a record; 0 if there is none at all."""
    return int.from_bytes(records.data(at)[8:16], "little") if records else 0


def _anchor(records: Records, at: int) -> bytes:
    """Return type, index, time and FIDs: the rest depends on what the library was asked for."""
    data = records.data(at)
    return data[4:16] + data[24:64]
