"""A small bridge of its own for tests of the FD plugin, well-behaved or not.

Covers: the bridge's side of docs/formats/stream-protocol.md, written a second time from that page;
streams of entries from a list; switchable misbehaviour; receipts kept for the test.
Does not cover: runs, segments, leases: the product's bridge is in bacula_bridge/.
"""

import contextlib
import os
import socket
import stat
import struct
import threading
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path

HELLO, ACCEPT, REFUSE, ENTRIES, KEEPALIVE, END, RECEIPTS, DONE, DONE_ACK, ABORT = range(1, 11)
SAVED, LINK, CHANGED, UNREADABLE, VANISHED, REPLACED, SKIPPED, SCAN_ERROR, DELETED = range(1, 10)
RELEASED, STUB = 10, 11
FLAG_DELETED, FLAG_LIST_FAILED, FLAG_STAT_FAILED, FLAG_PATH_TOO_LONG = 1, 2, 4, 8
FLAG_MOUNT_POINT, FLAG_EXCLUDED = 0x10, 0x20

VERSION = 2
MAGIC = 0x31534246
HEADER = struct.Struct("<IHHII")
ENTRY = struct.Struct("<QQQIIIiIIqq")
RECEIPT = struct.Struct("<QQQQqqqIIIIIIIiIiQ16sq")
ENTRIES_PER_FRAME_MAX = 8_192
PATHS_BYTES_MAX = 200_000
I64_MAX = (1 << 63) - 1
WAIT_S = 60.0
POLL_S = 0.05


class Misbehaviour(Enum):
    """What goes wrong; half of the entries come first where a stream is cut."""

    NONE = auto()
    REFUSE = auto()
    NO_ANSWER = auto()  # to HELLO
    CUT_FRAME = auto()
    CLOSE_AT_ONCE = auto()
    CLOSE_IN_STREAM = auto()
    SILENCE = auto()
    STALL = auto()  # keep-alives, but no more entries
    SLOW = auto()  # one entry a frame
    HOLD = auto()  # half of the entries, the others once the test sets go
    WRONG_CRC = auto()
    WRONG_MAGIC = auto()
    TOO_LONG = auto()
    WRONG_END_COUNT = auto()
    WRONG_END_CRC = auto()
    NO_END = auto()
    GAP = auto()
    PATH_UP = auto()
    PATH_ABSOLUTE = auto()
    PATH_EMPTY_COMPONENT = auto()
    PATH_NUL = auto()
    FILE_AFTER_DIRECTORY = auto()
    OVER_WINDOW = auto()
    GARBAGE = auto()
    GIVE_UP = auto()
    CLOSE_INSTEAD_OF_ACK = auto()
    NO_ACK = auto()  # silence after DONE
    BAD_ROOT = auto()
    WRONG_VERSION = auto()


@dataclass(frozen=True, slots=True)
class Entry:
    path: bytes
    ino: int
    size: int
    mode: int
    nlink: int
    error: int = 0
    flags: int = 0
    mtime_ns: int = 0  # 0: unknown
    ctime_ns: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    number: int
    ino: int
    size: int
    data_bytes: int
    atime_s: int
    mtime_s: int
    ctime_s: int
    atime_ns: int
    mtime_ns: int
    ctime_ns: int
    mode: int
    uid: int
    gid: int
    nlink: int
    file_index: int
    status: int
    error: int
    rdev: int
    hash: bytes
    read_ns: int


@dataclass(slots=True)
class Stream:
    """What became of one connection."""

    shard: int = -1
    shards: int = 0
    level: str = ""
    jobid: int = 0
    since: int = 0
    names: tuple[str, ...] = ()  # dataset, job, previous job, client
    receipts: list[Receipt] = field(default_factory=list)
    keepalives: int = 0
    done: tuple[int, int, int] | None = None  # receipts, bytes, warnings
    abort: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What ACCEPT promises and asks for."""

    threads: int = 4
    window: int = 65_536
    prefetch_bytes: int = 8 << 20
    large_file_bytes: int = 1 << 20
    note: bytes = b""
    snapshot: tuple[bytes, int, int] | None = None  # where the root is read, inode mask, time


def entry_from(path: bytes, info: os.stat_result) -> Entry:
    """Return the row of one name as a scan makes it."""
    fields = (path, info.st_ino, info.st_size, info.st_mode, info.st_nlink)
    times = (max(-I64_MAX - 1, min(I64_MAX, ns)) for ns in (info.st_mtime_ns, info.st_ctime_ns))
    return Entry(*fields, 0, 0, *times)


def entries_of_tree(root: Path) -> list[Entry]:
    """Return a row for every name below root and the root itself, in the order of a stream."""
    base = os.fsencode(root)
    plain, linked, directories = [], [], []

    def add(path: bytes, info: os.stat_result) -> None:
        entry = entry_from(path, info)
        if stat.S_ISDIR(info.st_mode):
            directories.append(entry)
        elif info.st_nlink > 1:
            linked.append(entry)
        else:
            plain.append(entry)

    def walk(directory: int, prefix: bytes) -> None:
        # By descriptors: a path may be longer than PATH_MAX.
        for name in map(os.fsencode, os.listdir(directory)):
            info = os.lstat(name, dir_fd=directory)
            add(prefix + name, info)
            if stat.S_ISDIR(info.st_mode):
                below = os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=directory)
                walk(below, prefix + name + b"/")
                os.close(below)

    top = os.open(base, os.O_RDONLY)
    add(b"", os.fstat(top))
    walk(top, b"")
    os.close(top)
    linked.sort(key=lambda entry: (entry.ino, entry.path))
    directories.sort(key=lambda entry: -(entry.path.count(b"/") + 1 if entry.path else 0))
    return plain + linked + directories


def split(entries: Sequence[Entry], shards: int) -> list[list[Entry]]:
    """Return the entries of each shard; all names of an inode stay together."""
    return [[entry for entry in entries if entry.ino % shards == k] for k in range(shards)]


def frame(kind: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(MAGIC, kind, 0, len(payload), zlib.crc32(payload)) + payload


def text(value: bytes) -> bytes:
    return struct.pack("<H", len(value)) + value


def entries_payload(first: int, entries: Sequence[Entry]) -> bytes:
    records = b"".join(
        ENTRY.pack(
            *(first + i, e.ino, e.size, e.mode, e.nlink, len(e.path), e.error, e.flags, 0),
            *(e.mtime_ns, e.ctime_ns),
        )
        for i, e in enumerate(entries)
    )
    paths = b"".join(e.path for e in entries)
    return struct.pack("<II", len(entries), len(paths)) + records + paths


def accept_payload(root: bytes, limits: Limits, version: int = VERSION) -> bytes:
    flags = 0 if limits.snapshot is None else 1
    fixed = struct.pack(
        *("<HHQQIIQQ", version, flags, 7, 3, limits.threads, limits.window),
        *(limits.prefetch_bytes, limits.large_file_bytes),
    )
    payload = fixed + text(b"run-7") + text(root) + text(limits.note)
    if limits.snapshot is not None:
        read_root, mask, time_ns = limits.snapshot
        payload += text(read_root) + struct.pack("<Qq", mask, time_ns)
    return payload


class _ClosedError(Exception):
    """The plugin has closed the connection."""


class _Connection:
    """One job: a thread receives, another one sends."""

    def __init__(self, bridge: "StreamBridge", peer: socket.socket) -> None:
        self.bridge = bridge
        self.peer = peer
        self.stream = Stream()
        self.changed = threading.Condition()
        self.closed = False
        self.done_checksum = 0
        self.receipts_checksum = 0
        self.sent = 0
        self.entries_checksum = 0
        self.sending = threading.Lock()

    def exactly(self, size: int) -> bytes:
        parts = bytearray()
        while len(parts) < size:
            part = self.peer.recv(min(size - len(parts), 1 << 20))
            if not part:
                raise _ClosedError
            parts += part
        return bytes(parts)

    def read_frame(self) -> tuple[int, bytes]:
        magic, kind, reserved, length, checksum = HEADER.unpack(self.exactly(HEADER.size))
        assert (magic, reserved) == (MAGIC, 0)
        assert length <= 1 << 20
        payload = self.exactly(length)
        assert zlib.crc32(payload) == checksum
        return kind, payload

    def send(self, data: bytes) -> None:
        with self.sending:
            self.peer.sendall(data)

    def take_hello(self) -> None:
        kind, payload = self.read_frame()
        assert kind == HELLO
        version, level, k, n, jobid, since = struct.unpack_from("<HHIIIq", payload)
        assert version == VERSION
        names, offset = [], 24
        while offset < len(payload):
            (length,) = struct.unpack_from("<H", payload, offset)
            names.append(os.fsdecode(payload[offset + 2 : offset + 2 + length]))
            offset += 2 + length
        assert offset == len(payload)
        s = self.stream
        s.shard, s.shards, s.level, s.jobid, s.since = k, n, chr(level), jobid, since
        s.names = tuple(names)
        assert len(names) == 4

    def receive(self) -> None:
        """Run on a thread of its own until the plugin closes."""
        try:
            while True:
                kind, payload = self.read_frame()
                with self.changed:
                    self.take(kind, payload)
                    self.changed.notify_all()
        except (_ClosedError, OSError):
            pass
        except AssertionError as error:
            self.stream.error = f"the plugin broke the protocol: {error!r}"
        with self.changed:
            self.closed = True
            self.changed.notify_all()

    def take(self, kind: int, payload: bytes) -> None:
        s = self.stream
        if kind == KEEPALIVE:
            assert payload == b""
            s.keepalives += 1
        elif kind == RECEIPTS:
            assert s.done is None
            count, reserved = struct.unpack_from("<II", payload)
            assert 1 <= count <= 4096
            assert (reserved, len(payload)) == (0, 8 + 128 * count)
            self.receipts_checksum = zlib.crc32(payload, self.receipts_checksum)
            new = [Receipt(*fields) for fields in RECEIPT.iter_unpack(payload[8:])]
            first = len(s.receipts)
            assert [r.number for r in new] == list(range(first, first + count))
            s.receipts += new
            assert len(s.receipts) <= self.sent
        elif kind == DONE:
            receipts, checksum, reserved, size, warnings = struct.unpack("<QIIQQ", payload)
            assert (receipts, checksum) == (len(s.receipts), self.receipts_checksum)
            assert reserved == 0
            s.done = (receipts, size, warnings)
        elif kind == ABORT:
            s.abort = os.fsdecode(payload[2:])
        else:
            raise AssertionError(f"frame {kind}")

    def wait_until(self, condition, *, keepalive: bool) -> None:
        """Wait, with keep-alives if asked for, until the condition holds or the plugin closes."""
        deadline = time.monotonic() + WAIT_S
        while True:
            with self.changed:
                if condition():
                    return
                if self.closed or time.monotonic() > deadline:
                    raise _ClosedError
                self.changed.wait(POLL_S)
            if keepalive:
                self.send(frame(KEEPALIVE))

    def send_entries(self, entries: Sequence[Entry], per_frame: int) -> None:
        window = self.bridge.limits.window
        at = 0
        while at < len(entries):
            self.wait_until(lambda: self.sent - len(self.stream.receipts) < window, keepalive=True)
            room = window - (self.sent - len(self.stream.receipts))
            batch, paths = [], 0
            for entry in entries[at : at + min(per_frame, room)]:
                if batch and paths + len(entry.path) > PATHS_BYTES_MAX:
                    break
                batch.append(entry)
                paths += len(entry.path)
            self.send_batch(batch)
            at += len(batch)

    def send_batch(self, batch: Sequence[Entry], first: int | None = None) -> None:
        payload = entries_payload(self.sent if first is None else first, batch)
        self.entries_checksum = zlib.crc32(payload, self.entries_checksum)
        self.sent += len(batch)
        self.send(frame(ENTRIES, payload))

    def serve(self) -> None:
        try:
            self.take_hello()
        except (_ClosedError, OSError):  # cancelled before it began
            self.peer.close()
            return
        way = self.bridge.misbehaviour.get(self.stream.shard, Misbehaviour.NONE)
        with self.bridge.changed:
            self.bridge.streams.append(self.stream)
            self.bridge.changed.notify_all()
        if way is Misbehaviour.CLOSE_AT_ONCE:
            self.peer.close()
            return
        receiver = threading.Thread(target=self.receive, daemon=True)
        receiver.start()
        with contextlib.suppress(_ClosedError, OSError):
            self.converse(way)
        if way in _CLOSING:
            with contextlib.suppress(OSError):  # the plugin was faster
                self.peer.shutdown(socket.SHUT_RDWR)
        receiver.join(WAIT_S)
        self.peer.close()

    def converse(self, way: Misbehaviour) -> None:
        root = os.fsencode(self.bridge.root)
        if way is Misbehaviour.REFUSE:
            self.send(frame(REFUSE, text(b"shard 1/2 belongs to another job")))
            return
        if way is Misbehaviour.NO_ANSWER:
            self.wait_until(lambda: False, keepalive=False)
        if way is Misbehaviour.BAD_ROOT:
            root += b"/no/such/root"
        version = VERSION - (way is Misbehaviour.WRONG_VERSION)
        self.send(frame(ACCEPT, accept_payload(root, self.bridge.limits, version)))
        entries = self.bridge.shards[self.stream.shard]
        per_frame = 1 if way is Misbehaviour.SLOW else self.bridge.per_frame
        if way in _CUTS:
            self.send_entries(entries[: len(entries) // 2], per_frame)
            for data in self.cut(way):
                self.send(data)
            if way not in _CLOSING:
                keepalive = way is not Misbehaviour.SILENCE
                self.wait_until(lambda: False, keepalive=keepalive)
            return
        if way is Misbehaviour.HOLD:
            self.send_entries(entries[: len(entries) // 2], per_frame)
            self.wait_until(self.bridge.go.is_set, keepalive=True)
            entries = entries[len(entries) // 2 :]
        self.send_entries(entries, per_frame)
        count = self.sent + (way is Misbehaviour.WRONG_END_COUNT)
        checksum = self.entries_checksum ^ (way is Misbehaviour.WRONG_END_CRC)
        self.send(frame(END, struct.pack("<QII", count, checksum, 0)))
        self.wait_until(lambda: self.stream.done is not None, keepalive=True)
        if way is Misbehaviour.NO_ACK:
            self.wait_until(lambda: False, keepalive=False)
        elif way is not Misbehaviour.CLOSE_INSTEAD_OF_ACK:
            self.send(frame(DONE_ACK))

    def cut(self, way: Misbehaviour) -> Iterator[bytes]:
        """Yield what comes in the middle of the stream instead of the other half."""
        file = Entry(b"name", 1, 0, stat.S_IFREG | 0o644, 1)
        batch = frame(ENTRIES, entries_payload(self.sent, [file]))
        bad_paths = {
            Misbehaviour.PATH_UP: b"a/../../etc/passwd",
            Misbehaviour.PATH_ABSOLUTE: b"/etc/passwd",
            Misbehaviour.PATH_EMPTY_COMPONENT: b"a//b",
            Misbehaviour.PATH_NUL: b"a\0b",
        }
        if way is Misbehaviour.CUT_FRAME:
            yield batch[: len(batch) // 2]
        elif way is Misbehaviour.WRONG_CRC:
            yield batch[:-1] + bytes([batch[-1] ^ 1])
        elif way is Misbehaviour.WRONG_MAGIC:
            yield b"GET / HTTP/1.1\r\n\r\n"
        elif way is Misbehaviour.TOO_LONG:
            yield HEADER.pack(MAGIC, ENTRIES, 0, (1 << 20) + 1, 0)
        elif way is Misbehaviour.GAP:
            yield frame(ENTRIES, entries_payload(self.sent + 1, [file]))
        elif way in bad_paths:
            bad = Entry(bad_paths[way], 1, 0, stat.S_IFREG | 0o644, 1)
            yield frame(ENTRIES, entries_payload(self.sent, [bad]))
        elif way is Misbehaviour.FILE_AFTER_DIRECTORY:
            directory = Entry(b"d", 2, 0, stat.S_IFDIR | 0o755, 2)
            yield frame(ENTRIES, entries_payload(self.sent, [directory, file]))
        elif way is Misbehaviour.OVER_WINDOW:
            end = self.sent + 2 * self.bridge.limits.window
            while self.sent < end:
                payload = entries_payload(self.sent, [file] * ENTRIES_PER_FRAME_MAX)
                self.sent += ENTRIES_PER_FRAME_MAX
                yield frame(ENTRIES, payload)
        elif way is Misbehaviour.GARBAGE:
            yield os.urandom(100_000)
        elif way is Misbehaviour.GIVE_UP:
            yield frame(ABORT, text(b"the segments of this run are damaged"))


# What cuts a stream in its middle, and after which the bridge closes by itself.
_CUTS = frozenset(Misbehaviour) - {
    *(Misbehaviour.NONE, Misbehaviour.REFUSE, Misbehaviour.NO_ANSWER, Misbehaviour.SLOW),
    *(Misbehaviour.WRONG_END_COUNT, Misbehaviour.WRONG_END_CRC, Misbehaviour.NO_ACK),
    *(Misbehaviour.CLOSE_INSTEAD_OF_ACK, Misbehaviour.BAD_ROOT, Misbehaviour.WRONG_VERSION),
    *(Misbehaviour.CLOSE_AT_ONCE, Misbehaviour.HOLD),
}
_CLOSING = frozenset(
    {
        Misbehaviour.REFUSE,
        Misbehaviour.CUT_FRAME,
        Misbehaviour.CLOSE_IN_STREAM,
        Misbehaviour.NO_END,
        Misbehaviour.GIVE_UP,
        Misbehaviour.CLOSE_INSTEAD_OF_ACK,
    }
)


class StreamBridge:
    """Listens on a socket and serves shard k the k-th list of entries."""

    def __init__(
        self,
        path: Path,
        root: Path,
        shards: Sequence[Sequence[Entry]],
        *,
        misbehaviour: Mapping[int, Misbehaviour] | None = None,
        limits: Limits | None = None,
        per_frame: int = ENTRIES_PER_FRAME_MAX,
    ) -> None:
        self.path = path
        self.root = root
        self.shards = shards
        self.misbehaviour = misbehaviour or {}
        self.limits = limits or Limits()
        self.per_frame = per_frame
        self.go = threading.Event()
        self.streams: list[Stream] = []
        self.changed = threading.Condition()
        self.threads: list[threading.Thread] = []
        self.connections: list[_Connection] = []
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(os.fspath(path))
        self.listener.listen(64)
        self.acceptor = threading.Thread(target=self._accept, daemon=True)
        self.acceptor.start()

    def _accept(self) -> None:
        while True:
            try:
                peer, _ = self.listener.accept()
            except OSError:  # closed
                return
            connection = _Connection(self, peer)
            thread = threading.Thread(target=connection.serve, daemon=True)
            self.connections.append(connection)
            self.threads.append(thread)
            thread.start()

    def stream(self, shard: int) -> Stream:
        """Return what became of a shard's stream; its connection has ended."""
        self.join()
        (found,) = [s for s in self.streams if s.shard == shard]
        assert found.error is None, found.error
        return found

    def join(self) -> None:
        for thread in self.threads:
            thread.join(WAIT_S)
            assert not thread.is_alive()

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.path.unlink(missing_ok=True)
        self.acceptor.join(WAIT_S)
        for connection in self.connections:
            with connection.changed:
                connection.closed = True
                connection.changed.notify_all()
        self.join()

    def __enter__(self) -> "StreamBridge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
