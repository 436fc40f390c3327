"""The changelog kernel's objects in Python: records in memory, and a set of places.

Covers: making and freeing them, their results as Python objects, codes to exceptions.
Does not cover: opening a changelog (api), what is missing in one (changelog), keeping sets (log).
"""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Self

from filesystems.lustre.errors import BlockMalformed, RecordMalformed
from filesystems.lustre.kernel._changelog import ffi, lib
from filesystems.lustre.records import Record

RECORD_BYTES_MAX = int(lib.FL_RECORD_BYTES_MAX)
BLOCK_BYTES_MAX = 8 << 20

_ROW = struct.Struct("<Q16sBBH")  # sequence, FID, kind, flags, length of the name
_HAS_ABOUT = 0x1
_WRONG = {
    lib.FL_NO_HEADER: f"a header has {lib.FL_HEADER_BYTES}",
    lib.FL_TOO_LONG: f"{lib.FL_RECORD_BYTES_MAX} is the most",
    lib.FL_EXTENSIONS_CUT: "it ends within its extensions",
    lib.FL_NAMES_CUT: "its names end behind its end",
}


def _check(code: int, what: str) -> int:
    """Raise where there was no memory; what other codes mean is the caller's."""
    if code == -errno.ENOMEM:
        raise MemoryError(f"no memory for {what}")
    return code


def decode(data: bytes) -> Record:
    """Decode one record; RecordMalformed if it is none."""
    record = ffi.new("struct fl_record *")
    kept = ffi.from_buffer(data)
    code = lib.fl_decode(kept, len(data), record)
    if code != 0:
        raise RecordMalformed(len(data), _WRONG[code])
    return _record(record)


def _record(record: Any) -> Record:
    def fid(pointer: Any) -> bytes:
        return b"" if pointer == ffi.NULL else bytes(ffi.buffer(pointer, lib.FL_FID_BYTES))

    return Record(
        record.kind,
        record.flags,
        record.number,
        record.time,
        fid(record.target),
        fid(record.parent),
        bytes(ffi.buffer(record.name, record.name_size)),
        fid(record.source),
        fid(record.source_parent),
        bytes(ffi.buffer(record.source_name, record.source_name_size)) if record.source else b"",
    )


class Records:
    """Records one behind the other, or a part of them that shares their memory."""

    def __init__(self, count_max: int, bytes_max: int) -> None:
        native = lib.fl_records_new(count_max, bytes_max)
        if native == ffi.NULL:
            raise MemoryError("no memory for changelog records")
        self._native = ffi.gc(native, lib.fl_records_free)
        self._begin = 0
        self._end: int | None = None  # as far as there are any

    @classmethod
    def of(cls, records: Iterable[bytes]) -> Self:
        """Return these, each as long as its header says; RecordMalformed if one is shorter."""
        data = list(records)
        found = cls(len(data), sum(map(len, data)) + lib.FL_RECORD_BYTES_MAX)
        for record in data:
            code = lib.fl_records_append(found._native, ffi.from_buffer(record), len(record))
            if code != 0:
                raise RecordMalformed(len(record), _WRONG[code])
        return found

    def __len__(self) -> int:
        end = lib.fl_records_count(self._native) if self._end is None else self._end
        return int(end - self._begin)

    def between(self, begin: int, end: int) -> Records:
        """Return some of them."""
        assert 0 <= begin <= end <= len(self)
        part = Records.__new__(Records)
        part._native = self._native
        part._begin, part._end = self._begin + begin, self._begin + end
        return part

    def receive(self, receive: int, release: int, opened: int) -> tuple[int, int]:
        """Append what the library gives, whose functions and handle are addresses.

        Returns how it ended (FULL, END ... below), and what the library said, or how long a
        record says that it is which cannot be read.
        """
        detail = ffi.new("int64_t *")
        ended = lib.fl_records_receive(
            self._native,
            ffi.cast("fl_receive", receive),
            ffi.cast("fl_release", release),
            ffi.cast("void *", opened),
            detail,
        )
        return int(ended), int(detail[0])

    def data(self, at: int) -> bytes:
        """Return the bytes of one."""
        assert 0 <= at < len(self)
        size = ffi.new("size_t *")
        pointer = lib.fl_records_bytes(self._native, self._begin + at, size)
        return bytes(ffi.buffer(pointer, size[0]))

    def __iter__(self) -> Iterator[Record]:
        return (decode(self.data(at)) for at in range(len(self)))

    def run_end(self, at: int, number: int) -> int:
        """Return the first from `at` on that does not follow its predecessor, of that number.

        0: whatever comes follows. The count of all if none does not.
        """
        end = self._begin + len(self)
        return int(lib.fl_records_run(self._native, self._begin + at, end, number)) - self._begin


FULL, END, FAILED, NO_MEMORY, UNREADABLE = (
    lib.FL_FULL,
    lib.FL_END,
    lib.FL_FAILED,
    lib.FL_NO_MEMORY,
    lib.FL_UNREADABLE,
)


class Row(NamedTuple):
    """A place to look at. About is empty, or the FID that a TREE is about."""

    fid: bytes
    name: bytes
    kind: int
    about: bytes
    sequence: int


class Block(NamedTuple):
    """Rows as bytes."""

    data: memoryview
    count: int
    newest: int  # sequence


class Places:
    """A set of places, each once."""

    def __init__(self) -> None:
        native = lib.fl_places_new(*struct.unpack("=QQ", os.urandom(16)))
        if native == ffi.NULL:
            raise MemoryError("no memory for places")
        self._native = ffi.gc(native, lib.fl_places_free)

    def __len__(self) -> int:
        return int(lib.fl_places_count(self._native))

    @property
    def memory_bytes(self) -> int:
        """Return how much memory it takes, marks of inodes included that are no places."""
        return int(lib.fl_places_memory(self._native))

    @property
    def was_off(self) -> bool:
        """Tell whether a marker said that nothing was recorded for a time."""
        return bool(lib.fl_places_was_off(self._native))

    def free(self) -> None:
        """Give its memory back; it cannot be used any more."""
        ffi.release(self._native)
        del self._native

    def add(self, records: Records) -> None:
        """Take in what records make us look at."""
        end = records._begin + len(records)
        code = lib.fl_places_add(self._native, records._native, records._begin, end)
        assert _check(code, "places") == 0, code

    def load(self, data: bytes, count: int, since: int) -> None:
        """Take in the rows of a block that are newer than a sequence; BlockMalformed."""
        code = lib.fl_places_load(self._native, ffi.from_buffer(data), len(data), count, since)
        if _check(code, "places") == -errno.EBADMSG:
            raise BlockMalformed(len(data), count)
        assert code == 0, code

    def newest(self, count_max: int) -> int:
        """Return after which sequence there are at most so many; 0 if all are."""
        sequence = ffi.new("uint64_t *")
        code = _check(lib.fl_places_newest(self._native, count_max, sequence), "places")
        assert code == 0, code
        return int(sequence[0])

    def blocks(
        self, since: int, sequence: int, bytes_max: int = BLOCK_BYTES_MAX
    ) -> Iterator[Block]:
        """Yield rows newer than `since`, with `sequence` where theirs is older.

        A block is to be used before the next one is asked for, which takes its memory.
        """
        room = min(BLOCK_BYTES_MAX, lib.fl_places_bytes(self._native)) + lib.FL_BLOCK_ROW_BYTES_MAX
        out = ffi.new("uint8_t[]", room)
        block = ffi.new("struct fl_block *")
        more = 1
        while more:
            more = lib.fl_places_store(self._native, since, sequence, out, room, block)
            if block.count:
                data = memoryview(ffi.buffer(out, block.size))
                yield Block(data, int(block.count), int(block.newest))

    def __iter__(self) -> Iterator[Row]:
        for block in self.blocks(since=0, sequence=1):
            yield from rows(block.data, block.count)


def rows(data: bytes | memoryview, count: int) -> Iterator[Row]:
    """Yield the rows of a block that is known to be well formed."""
    at = 0
    for _ in range(count):
        sequence, fid, kind, flags, size = _ROW.unpack_from(data, at)
        at += _ROW.size
        about = b""
        if flags & _HAS_ABOUT:
            about = bytes(data[at : at + 16])
            at += 16
        yield Row(fid, bytes(data[at : at + size]), kind, about, sequence)
        at += size
