"""One shard stream's state: what was sent, what was acknowledged, whether it adds up.

Covers: numbering, the window, joining receipts with paths, the totals at the end.
Does not cover: the socket and its threads (server), the order of rows (shards.order).
"""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterator

import pyarrow as pa

from bacula_bridge.protocol import (
    ENTRIES_MAX,
    FrameType,
    Payload,
    ProtocolError,
    decode_done,
    decode_receipts,
    encode_end,
    encode_entries,
    frame,
    receipts_batch,
)
from shards.schema import ReceiptStatus


class StreamState:
    """Entries out, receipts in, in the same order; no clock, no socket."""

    def __init__(self, window: int) -> None:
        self.window = window
        # A quarter: so the other side never runs dry while a frame waits for its room.
        self._frame_entries = max(1, min(ENTRIES_MAX, window // 4))
        self.sent = 0
        self.acknowledged = 0
        self.ended = False
        self._sent_checksum = 0
        self._receipts_checksum = 0
        self._paths: deque[pa.Array] = deque()  # of entries without a receipt, oldest first

    @property
    def unacknowledged(self) -> int:
        return self.sent - self.acknowledged

    @property
    def has_room(self) -> bool:
        """Tell whether another frame fits into the window, which the plugin enforces."""
        return self.unacknowledged + self._frame_entries <= self.window

    def entry_frames(self, batch: pa.RecordBatch) -> Iterator[bytes]:
        """Yield frames for rows; take one only while there is room for it."""
        paths = batch.column("path")
        start = 0
        for payload, count in encode_entries(batch, self.sent, self._frame_entries):
            self._paths.append(paths.slice(start, count))
            start += count
            self.sent += count
            self._sent_checksum = zlib.crc32(payload, self._sent_checksum)
            assert self.unacknowledged <= self.window, "the caller did not wait for room"
            yield frame(FrameType.ENTRIES, payload)

    def end_frame(self) -> bytes:
        """Return END; nothing is sent after it but DONE_ACK."""
        self.ended = True
        return encode_end(self.sent, self._sent_checksum)

    def receipts(self, payload: Payload) -> pa.RecordBatch:
        """Check a RECEIPTS payload; return its records joined with their paths."""
        records = decode_receipts(payload)
        count = len(records)
        if count > self.unacknowledged:
            raise ProtocolError(
                f"{count} receipts for {self.unacknowledged} entries that wait for one"
            )
        numbers = records["number"]
        expected = range(self.acknowledged, self.acknowledged + count)
        if numbers.tolist() != list(expected):
            raise ProtocolError(
                f"receipts {numbers[0]} to {numbers[-1]} came where {expected[0]} was due"
            )
        status = records["status"]
        if status.min() < 1 or status.max() > max(ReceiptStatus):
            raise ProtocolError("a receipt has an unknown status")
        self._receipts_checksum = zlib.crc32(payload, self._receipts_checksum)
        self.acknowledged += count
        return receipts_batch(records, self._take_paths(count))

    def check_done(self, payload: Payload) -> None:
        """Compare the plugin's totals with what came."""
        done = decode_done(payload)
        if not self.ended:
            raise ProtocolError("DONE came before END")
        if done.receipts != self.sent or self.acknowledged != self.sent:
            raise ProtocolError(
                f"{self.sent} entries were sent, {self.acknowledged} receipts came,"
                f" DONE counts {done.receipts}"
            )
        if done.checksum != self._receipts_checksum:
            raise ProtocolError("DONE has another CRC-32 over the receipts")

    def _take_paths(self, count: int) -> pa.Array:
        parts = []
        while count:
            head = self._paths[0]
            if len(head) <= count:
                parts.append(self._paths.popleft())
                count -= len(head)
            else:
                parts.append(head.slice(0, count))
                self._paths[0] = head.slice(count)
                count = 0
        return parts[0] if len(parts) == 1 else pa.concat_arrays(parts)
