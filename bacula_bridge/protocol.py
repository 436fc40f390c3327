"""Frames of the stream protocol, version 2 (docs/formats/stream-protocol.md).

Covers: encoding and decoding every frame and record, with every length checked.
Does not cover: sockets (server), what is sent when (stream).
"""

from __future__ import annotations

import json
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import pyarrow as pa

from shards.errors import ForebayError
from shards.schema import RECEIPT_SCHEMA, RowFlag

PROTOCOL_VERSION = 2
MAGIC = 0x31534246
HEADER = struct.Struct("<IHHII")
PAYLOAD_BYTES_MAX = 1_048_576
ENTRIES_MAX = 8_192
RECEIPTS_MAX = 4_096
STRING_BYTES_MAX = 65_535
NOTE_BYTES_MAX = 1_500
HINT_BYTES_MAX = 4_096


class ProtocolError(ForebayError):
    """The other side sent what the protocol does not allow."""

    template = "stream protocol: {0}"


class FrameType(IntEnum):
    """Types of frames."""

    HELLO = 1
    ACCEPT = 2
    REFUSE = 3
    ENTRIES = 4
    KEEPALIVE = 5
    END = 6
    RECEIPTS = 7
    DONE = 8
    DONE_ACK = 9
    ABORT = 10
    HINT = 11  # of a hook, instead of HELLO; the answer is DONE_ACK


Payload = bytes | bytearray

ENTRY_DTYPE = np.dtype(
    [
        ("number", "<u8"),
        ("ino", "<u8"),
        ("size", "<u8"),
        ("mode", "<u4"),
        ("nlink", "<u4"),
        ("path_len", "<u4"),
        ("error", "<i4"),
        ("flags", "<u4"),
        ("reserved", "<u4"),
        ("mtime_ns", "<i8"),
        ("ctime_ns", "<i8"),
    ]
)
RECEIPT_DTYPE = np.dtype(
    [
        ("number", "<u8"),
        ("ino", "<u8"),
        ("size", "<u8"),
        ("sent_bytes", "<u8"),
        ("atime_s", "<i8"),
        ("mtime_s", "<i8"),
        ("ctime_s", "<i8"),
        ("atime_ns", "<u4"),
        ("mtime_ns", "<u4"),
        ("ctime_ns", "<u4"),
        ("mode", "<u4"),
        ("uid", "<u4"),
        ("gid", "<u4"),
        ("nlink", "<u4"),
        ("file_index", "<i4"),
        ("status", "<u4"),
        ("error", "<i4"),
        ("rdev", "<u8"),
        ("hash", "V16"),
        ("read_ns", "<i8"),
    ]
)
assert ENTRY_DTYPE.itemsize == 64
assert RECEIPT_DTYPE.itemsize == 128

# Flags of an entry record, by the flag of the row that they come from.
_ENTRY_FLAGS = (
    (RowFlag.LIST_FAILED, 0x2),
    (RowFlag.STAT_FAILED, 0x4),
    (RowFlag.PATH_TOO_LONG, 0x8),
    (RowFlag.MOUNT_POINT, 0x10),
    (RowFlag.EXCLUDED, 0x20),
    (RowFlag.DELETED, 0x1),
)


_TYPE_BITS = 0o170000


@dataclass(frozen=True, slots=True)
class Hello:
    """What a job says of itself."""

    level: str  # F, D or I
    shard: int
    shards: int
    jobid: int
    since: int  # seconds since 1970; 0 for a Full
    dataset: str
    job: str  # unique job name
    previous_job: str
    client: str


@dataclass(frozen=True, slots=True)
class Hint:
    """What a hook says of a job; nothing depends on it."""

    when: str  # before or after
    jobid: str
    job: str
    level: str
    status: str


@dataclass(frozen=True, slots=True)
class Accept:
    """What the plugin is to work on, and its bounds."""

    run: int
    epoch: int
    run_id: str
    root: bytes
    threads: int = 32
    window: int = 65_536
    prefetch_bytes: int = 32 << 20
    large_file_bytes: int = 4 << 20
    note: str = ""  # a line for the job log
    read_root: bytes = b""  # where the root is read, if not as it is: in a snapshot
    inode_mask: int = 0  # bits of an inode number there that are the live one's; 0: all
    snapshot_ns: int = 0  # when it was taken: nothing in it was read later


@dataclass(frozen=True, slots=True)
class Done:
    """The plugin's totals."""

    receipts: int
    checksum: int
    size_bytes: int
    warnings: int


def frame(kind: FrameType, payload: bytes = b"") -> bytes:
    """Return a whole frame."""
    assert len(payload) <= PAYLOAD_BYTES_MAX, "the caller splits"
    return HEADER.pack(MAGIC, kind, 0, len(payload), zlib.crc32(payload)) + payload


def parse_header(header: bytes) -> tuple[FrameType, int, int]:
    """Return type, payload length and CRC-32 of a frame's header."""
    magic, kind, reserved, length, checksum = HEADER.unpack(header)
    if magic != MAGIC or reserved != 0:
        raise ProtocolError("this is not a frame (bad magic)")
    if length > PAYLOAD_BYTES_MAX:
        raise ProtocolError(f"a frame of {length} bytes is longer than {PAYLOAD_BYTES_MAX}")
    try:
        return FrameType(kind), length, checksum
    except ValueError as error:
        raise ProtocolError(f"unknown frame type {kind}") from error


def check_payload(payload: Payload, checksum: int) -> None:
    """Compare a payload with its header's CRC-32."""
    if zlib.crc32(payload) != checksum:
        raise ProtocolError("a frame's CRC-32 is wrong")


def _string(text: bytes) -> bytes:
    if len(text) > STRING_BYTES_MAX or b"\0" in text:
        raise ProtocolError("a string is too long or holds a NUL byte")
    return struct.pack("<H", len(text)) + text


def _words(text: str, bytes_max: int) -> bytes:
    """Return a text for the job log, cut between characters; names in it may be no UTF-8."""
    data = text.replace("\0", "").encode("utf-8", "backslashreplace")
    return data[:bytes_max].decode("utf-8", "ignore").encode()


def _strings(payload: Payload, offset: int, count: int) -> list[bytes]:
    strings = []
    for _ in range(count):
        if offset + 2 > len(payload):
            raise ProtocolError("a frame ends inside a string")
        (length,) = struct.unpack_from("<H", payload, offset)
        text = payload[offset + 2 : offset + 2 + length]
        if len(text) != length or b"\0" in text:
            raise ProtocolError("a frame ends inside a string, or it holds a NUL byte")
        strings.append(bytes(text))
        offset += 2 + length
    if offset != len(payload):
        raise ProtocolError("a frame has bytes after its last string")
    return strings


_HELLO = struct.Struct("<HHIIIq")
_ACCEPT = struct.Struct("<HHQQIIQQ")
_SNAPSHOT = struct.Struct("<Qq")  # inode mask, time
_FLAG_SNAPSHOT = 0x1  # of ACCEPT
_END = struct.Struct("<QII")
_DONE = struct.Struct("<QIIQQ")
_COUNT = struct.Struct("<II")


def encode_hello(hello: Hello) -> bytes:
    """Return a HELLO frame."""
    fixed = _HELLO.pack(
        PROTOCOL_VERSION, ord(hello.level), hello.shard, hello.shards, hello.jobid, hello.since
    )
    names = (hello.dataset, hello.job, hello.previous_job, hello.client)
    return frame(FrameType.HELLO, fixed + b"".join(_string(name.encode()) for name in names))


def decode_hello(payload: Payload) -> Hello:
    """Read a HELLO payload; the names in it are checked by whoever looks them up."""
    if len(payload) < _HELLO.size:
        raise ProtocolError("HELLO is too short")
    version, level, shard, shards, jobid, since = _HELLO.unpack_from(payload)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"the plugin speaks version {version}, this bridge {PROTOCOL_VERSION};"
            " install the plugin that came with this Forebay"
        )
    names = [text.decode("utf-8", "replace") for text in _strings(payload, _HELLO.size, 4)]
    return Hello(chr(level), shard, shards, jobid, since, *names)


def decode_hint(payload: Payload) -> Hint:
    """Read a HINT payload, JSON of a few short texts."""
    try:
        said = json.loads(bytes(payload[:HINT_BYTES_MAX]))
        hint = Hint(**{name: str(said[name]) for name in Hint.__slots__})
    except (ValueError, KeyError, TypeError) as error:
        raise ProtocolError(f"HINT is damaged: {error}") from error
    if hint.when not in ("before", "after") or not hint.jobid.isdecimal():
        raise ProtocolError("HINT is neither of a job's beginning nor of its end")
    return hint


def encode_accept(accept: Accept) -> bytes:
    """Return an ACCEPT frame."""
    fixed = _ACCEPT.pack(
        PROTOCOL_VERSION,
        _FLAG_SNAPSHOT if accept.read_root else 0,
        accept.run,
        accept.epoch,
        accept.threads,
        accept.window,
        accept.prefetch_bytes,
        accept.large_file_bytes,
    )
    strings = (accept.run_id.encode(), accept.root, _words(accept.note, NOTE_BYTES_MAX))
    payload = fixed + b"".join(map(_string, strings))
    if accept.read_root:
        payload += _string(accept.read_root)
        payload += _SNAPSHOT.pack(accept.inode_mask, accept.snapshot_ns)
    return frame(FrameType.ACCEPT, payload)


def decode_accept(payload: Payload) -> Accept:
    """Read an ACCEPT payload."""
    if len(payload) < _ACCEPT.size:
        raise ProtocolError("ACCEPT is too short")
    _version, flags, run, epoch, *bounds = _ACCEPT.unpack_from(payload)
    snapshot: tuple[bytes, int, int] = (b"", 0, 0)
    if flags & _FLAG_SNAPSHOT:
        if len(payload) < _ACCEPT.size + _SNAPSHOT.size:
            raise ProtocolError("ACCEPT is too short")
        payload, numbers = payload[: -_SNAPSHOT.size], payload[-_SNAPSHOT.size :]
        run_id, root, note, read_root = _strings(payload, _ACCEPT.size, 4)
        snapshot = (read_root, *_SNAPSHOT.unpack(numbers))
    else:
        run_id, root, note = _strings(payload, _ACCEPT.size, 3)
    text = note.decode("utf-8", "replace")
    return Accept(run, epoch, run_id.decode(), root, *bounds, text, *snapshot)


def encode_reason(kind: FrameType, reason: str) -> bytes:
    """Return a REFUSE or ABORT frame."""
    return frame(kind, _string(_words(reason, STRING_BYTES_MAX)))


def decode_reason(payload: Payload) -> str:
    """Read a REFUSE or ABORT payload."""
    return _strings(payload, 0, 1)[0].decode("utf-8", "replace")


def encode_end(entries: int, checksum: int) -> bytes:
    """Return an END frame: entries sent, CRC-32 over the payloads of all ENTRIES frames."""
    return frame(FrameType.END, _END.pack(entries, checksum, 0))


def decode_done(payload: Payload) -> Done:
    """Read a DONE payload."""
    if len(payload) != _DONE.size:
        raise ProtocolError(f"DONE has {len(payload)} bytes, not {_DONE.size}")
    receipts, checksum, _reserved, size_bytes, warnings = _DONE.unpack(payload)
    return Done(receipts, checksum, size_bytes, warnings)


def encode_entries(
    batch: pa.RecordBatch, number: int, entries_max: int
) -> Iterator[tuple[bytes, int]]:
    """Yield ENTRIES payloads for rows of the INODE schema, each with its number of entries.

    number is that of the first entry; a payload has entries_max at the most. The paths are one
    slice of Arrow's own buffer.
    """
    paths = batch.column("path")
    offsets = np.frombuffer(paths.buffers()[1], dtype=np.int32)[
        paths.offset : paths.offset + len(paths) + 1
    ].astype(np.int64)
    data = paths.buffers()[2]
    records = np.zeros(batch.num_rows, dtype=ENTRY_DTYPE)
    records["number"] = np.arange(number, number + batch.num_rows, dtype=np.uint64)
    for name in ("ino", "size", "mode", "nlink", "error"):
        records[name] = batch.column(name).to_numpy()
    for name in ("mtime", "ctime"):
        records[f"{name}_ns"] = batch.column(name).to_numpy()
    records["path_len"] = np.diff(offsets)
    row_flags = batch.column("flags").to_numpy()
    for row_flag, entry_flag in _ENTRY_FLAGS:
        records["flags"] |= np.where(row_flags & row_flag, entry_flag, 0).astype(np.uint32)
    # A name that is known from the catalog alone has no type unless it is a directory's.
    untyped = (row_flags & RowFlag.DELETED != 0) & (records["mode"] & _TYPE_BITS == 0)
    records["mode"] |= np.where(untyped, stat.S_IFREG, 0).astype(np.uint32)
    start = 0
    while start < batch.num_rows:
        end = _rows_that_fit(offsets, start, min(start + entries_max, batch.num_rows))
        low, high = int(offsets[start]), int(offsets[end])
        blob = data[low:high].to_pybytes() if high > low else b""
        yield (
            _COUNT.pack(end - start, high - low) + records[start:end].tobytes() + blob,
            end - start,
        )
        start = end


def _rows_that_fit(offsets: np.ndarray, start: int, end: int) -> int:
    room = PAYLOAD_BYTES_MAX - _COUNT.size
    sizes = (offsets[start + 1 : end + 1] - offsets[start]) + ENTRY_DTYPE.itemsize * np.arange(
        1, end - start + 1
    )
    fitting = int(np.searchsorted(sizes, room, side="right"))
    assert fitting > 0, "a path is at most 65,535 bytes, so one entry always fits"
    return start + fitting


def decode_receipts(payload: Payload) -> np.ndarray:
    """Read a RECEIPTS payload into an array of RECEIPT_DTYPE."""
    if len(payload) < _COUNT.size:
        raise ProtocolError("RECEIPTS is too short")
    count, _reserved = _COUNT.unpack_from(payload)
    if not 1 <= count <= RECEIPTS_MAX:
        raise ProtocolError(f"RECEIPTS counts {count} records, allowed are 1 to {RECEIPTS_MAX}")
    if len(payload) != _COUNT.size + count * RECEIPT_DTYPE.itemsize:
        raise ProtocolError(f"RECEIPTS of {count} records has {len(payload)} bytes")
    return np.frombuffer(payload, dtype=RECEIPT_DTYPE, offset=_COUNT.size)


def receipts_batch(records: np.ndarray, paths: pa.Array) -> pa.RecordBatch:
    """Join receipt records with the paths of their entries."""
    assert len(records) == len(paths)
    hashes = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), len(records), [None, pa.py_buffer(records["hash"].tobytes())]
    )
    columns = []
    for field in RECEIPT_SCHEMA:
        if field.name == "hash":
            columns.append(hashes)
        elif field.name == "path":
            columns.append(paths)
        else:
            columns.append(pa.array(np.ascontiguousarray(records[field.name])))
    return pa.RecordBatch.from_arrays(columns, schema=RECEIPT_SCHEMA)
