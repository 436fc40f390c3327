"""How many entries per second does the bridge send to the plugin?

Covers: the bridge's process alone, without Ray, with one stream: segments read, ENTRIES sent,
RECEIPTS checked and kept.
Does not cover: the plugin, whose side this process takes; the scan that makes the segments.
"""

import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np

from bacula_bridge.protocol import (
    HEADER,
    RECEIPT_DTYPE,
    RECEIPTS_MAX,
    FrameType,
    Hello,
    encode_hello,
    frame,
    parse_header,
)
from benchmarks.private_bacula import cpu_seconds_of
from benchmarks.runner import (
    CHECKOUT,
    PROCESS_TIMEOUT_S,
    BenchmarkFailed,
    Column,
    Contender,
    Report,
    measure,
)
from shards.schema import ReceiptStatus

QUESTION = "entries per second that the bridge sends, with the receipts that come back"
ENTRIES, ENTRIES_QUICK = 4_000_000, 1_000_000
ROUNDS, ROUNDS_QUICK = 3, 2
SOCKET_TIMEOUT_S = 60.0
BUFFER_BYTES = 1 << 22
DONE = struct.Struct("<QIIQQ")  # docs/formats/stream-protocol.md

COLUMNS = (
    Column("rate", "entries/s"),
    Column("core_rate", "entries/s of one core"),
    Column("cpu_us", "CPU us/entry", 3),
    Column("mib_s", "MiB/s"),
)
NOTES = (
    "CPU is that of the bridge's process, all threads: segments read, ENTRIES with their CRC-32,"
    " RECEIPTS checked, joined with paths and written. 'Of one core' is entries by CPU second.",
    "The other side acknowledges each frame at once and reads no file.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Stream made-up entries, round after round, and report."""
    entries = ENTRIES_QUICK if quick else ENTRIES
    numbers = iter(range(1_000_000))

    def run_once() -> dict[str, float]:
        return _stream(folder / f"bridge-{next(numbers)}", entries)

    contenders = [Contender("bridge, 1 stream", "bacula_bridge.server, one socket", run_once)]
    return Report(
        benchmark="bridge",
        question=QUESTION,
        setting=f"{entries:,} made-up entries with paths of 45 bytes, segments in the page cache",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS)),
        notes=NOTES,
    )


def _stream(place: Path, entries: int) -> dict[str, float]:
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.bridge_process", str(entries), str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=CHECKOUT,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        path = process.stdout.readline().strip()
        if not path:
            raise BenchmarkFailed("the bridge's process did not start")
        before = cpu_seconds_of(process.pid)
        started = time.perf_counter()
        size = _Plugin(path).take_all(entries)
        wall_s = time.perf_counter() - started
        cpu_s = cpu_seconds_of(process.pid) - before
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(PROCESS_TIMEOUT_S)
    return {
        "rate": entries / wall_s,
        "core_rate": entries / cpu_s,
        "cpu_us": cpu_s * 1e6 / entries,
        "mib_s": size / wall_s / 2**20,
    }


class _Plugin:
    """The other side of one stream, as quick as Python can."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(SOCKET_TIMEOUT_S)
        self._socket.connect(path)
        self._buffer = bytearray(BUFFER_BYTES)
        self._receipts = np.zeros(RECEIPTS_MAX, RECEIPT_DTYPE)
        self._receipts["status"] = ReceiptStatus.SAVED
        self._receipts["mode"] = 0o100644
        self._receipts["nlink"] = 1
        self._checksum = 0
        self._acknowledged = 0

    def take_all(self, entries: int) -> int:
        """Take the whole stream, acknowledge it, end it; return the bytes that came."""
        hello = Hello("F", 0, 1, 1, 0, "bench", "bench.1", "", "bench-fd")
        self._socket.sendall(encode_hello(hello))
        size = 0
        while True:
            kind, payload = self._read()
            size += len(payload)
            if kind is FrameType.ENTRIES:
                self._acknowledge(int.from_bytes(payload[:4], "little"))
            elif kind is FrameType.END:
                break
            elif kind not in (FrameType.ACCEPT, FrameType.KEEPALIVE):
                raise BenchmarkFailed(f"the bridge sent {kind.name}: {bytes(payload[:500])!r}")
        if self._acknowledged != entries:
            raise BenchmarkFailed(f"{self._acknowledged:,} of {entries:,} entries came")
        self._end()
        return size

    def _read(self) -> tuple[FrameType, memoryview]:
        header = self._exactly(HEADER.size)
        kind, length, _ = parse_header(bytes(header))
        return kind, self._exactly(length)

    def _exactly(self, size: int) -> memoryview:
        if size > len(self._buffer):
            raise BenchmarkFailed(f"a frame has {size:,} bytes")
        view = memoryview(self._buffer)[:size]
        got = 0
        while got < size:
            count = self._socket.recv_into(view[got:])
            if not count:
                raise BenchmarkFailed("the bridge closed the stream")
            got += count
        return view

    def _acknowledge(self, count: int) -> None:
        while count:
            part = min(count, RECEIPTS_MAX)
            receipts = self._receipts[:part]
            first = self._acknowledged
            receipts["number"] = np.arange(first, first + part)
            receipts["ino"] = receipts["number"] + 1000
            receipts["file_index"] = receipts["number"] + 1
            payload = part.to_bytes(4, "little") + bytes(4) + receipts.tobytes()
            self._checksum = zlib.crc32(payload, self._checksum)
            self._socket.sendall(frame(FrameType.RECEIPTS, payload))
            self._acknowledged += part
            count -= part

    def _end(self) -> None:
        totals = DONE.pack(self._acknowledged, self._checksum, 0, 0, 0)
        self._socket.sendall(frame(FrameType.DONE, totals))
        kind, payload = self._read()
        if kind is not FrameType.DONE_ACK:
            raise BenchmarkFailed(f"the bridge sent {kind.name}: {bytes(payload[:500])!r}")
        self._socket.close()
