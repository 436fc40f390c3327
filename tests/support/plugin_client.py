"""A client of the stream protocol in Python: the plugin's side, well-behaved or not.

A stand-in for the FD plugin in tests of the bridge alone; the real plugin is tested against the
real bridge in tests/system.
"""

import itertools
import socket
import struct
import zlib

import numpy as np

from bacula_bridge.protocol import (
    ENTRY_DTYPE,
    HEADER,
    RECEIPT_DTYPE,
    FrameType,
    Hello,
    check_payload,
    decode_accept,
    decode_reason,
    encode_hello,
    frame,
    parse_header,
)
from shards.schema import ReceiptStatus

FLAG_DELETED = 0x1
COPIED = ("ino", "size", "mode", "nlink")
NO_ENTRY = np.zeros((), ENTRY_DTYPE)


class PluginClient:
    """One connection of a job."""

    def __init__(self, path, timeout_s=20.0):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout_s)
        self.socket.connect(str(path))
        self.received = 0
        self.acknowledged = 0
        self.receipts_checksum = 0
        self.entries_checksum = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def read(self):
        """Return the next frame that is not a keep-alive, or (None, b"") at the end of file."""
        while True:
            header = self._exactly(HEADER.size)
            if header is None:
                return None, b""
            kind, length, checksum = parse_header(header)
            payload = self._exactly(length)
            check_payload(payload, checksum)
            if kind is not FrameType.KEEPALIVE:
                return kind, payload

    def _exactly(self, size):
        data = b""
        while len(data) < size:
            chunk = self.socket.recv(size - len(data))
            if not chunk:
                return None
            data += chunk
        return data

    def send(self, data):
        self.socket.sendall(data)

    def hello(self, dataset="d", shard=0, shards=1, jobid=1, level="F", **others):
        values = {"since": 0, "job": f"job.{jobid}", "previous_job": "", "client": "c-fd"}
        self.send(
            encode_hello(Hello(level, shard, shards, jobid, dataset=dataset, **(values | others)))
        )
        kind, payload = self.read()
        if kind is FrameType.ACCEPT:
            return decode_accept(payload)
        if kind is FrameType.REFUSE:
            return decode_reason(payload)
        return kind

    def entries(self):
        """Yield (record, path) of all entries up to END, checking numbers and END's totals."""
        while True:
            kind, payload = self.read()
            if kind is FrameType.END:
                count, checksum, _ = struct.unpack("<QII", payload)
                assert (count, checksum) == (self.received, self.entries_checksum)
                return
            assert kind is FrameType.ENTRIES, (kind, payload)
            self.entries_checksum = zlib.crc32(payload, self.entries_checksum)
            yield from self._entries(payload)

    def _entries(self, payload):
        count, path_bytes = struct.unpack_from("<II", payload)
        records = np.frombuffer(payload, ENTRY_DTYPE, count, 8)
        paths = payload[8 + count * ENTRY_DTYPE.itemsize :]
        assert len(paths) == path_bytes == records["path_len"].sum()
        offset = 0
        for record in records:
            assert record["number"] == self.received
            self.received += 1
            length = int(record["path_len"])
            yield record, paths[offset : offset + length]
            offset += length

    def acknowledge_as_scanned(self, entries, rows, read_ns):
        """Send receipts as they are when all was sent just as the scan's rows say."""
        by_path = {row["path"]: row for row in rows}
        fields = {name: [record[name] for record, _ in entries] for name in COPIED}
        for name in ("mtime", "ctime"):
            stamps = [by_path.get(path, {}).get(name, 0) for _, path in entries]
            fields[f"{name}_s"] = [stamp // 10**9 for stamp in stamps]
            fields[f"{name}_ns"] = [stamp % 10**9 for stamp in stamps]
        fields["status"] = [
            ReceiptStatus.DELETED
            if record["flags"] & FLAG_DELETED
            else ReceiptStatus.LINK
            if previous["ino"] == record["ino"]
            else ReceiptStatus.SAVED
            for (previous, _), (record, _) in itertools.pairwise([(NO_ENTRY, b""), *entries])
        ]
        deleted = np.array(fields["status"]) == ReceiptStatus.DELETED
        fields["read_ns"] = np.where(deleted, 0, read_ns)
        self.acknowledge(len(entries), **fields)

    def acknowledge(self, count, status=ReceiptStatus.SAVED, **values):
        """Send one RECEIPTS frame for the next count entries."""
        records = np.zeros(count, RECEIPT_DTYPE)
        records["number"] = np.arange(self.acknowledged, self.acknowledged + count)
        records["status"] = status
        records["file_index"] = records["number"] + 1
        for name, value in values.items():
            records[name] = value
        payload = struct.pack("<II", count, 0) + records.tobytes()
        self.receipts_checksum = zlib.crc32(payload, self.receipts_checksum)
        self.acknowledged += count
        self.send(frame(FrameType.RECEIPTS, payload))

    def done(self, receipts=None, checksum=None):
        total = self.acknowledged if receipts is None else receipts
        checksum = self.receipts_checksum if checksum is None else checksum
        self.send(frame(FrameType.DONE, struct.pack("<QIIQQ", total, checksum, 0, 0, 0)))
