"""What a bridge does, as metrics.

Covers: totals of streams by dataset and shard, live and over; how long its steps take.
Does not cover: serving streams (server), what the catalog says of their jobs (the ledger).
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from shards.measures import Durations, Sample


@dataclass(frozen=True, slots=True)
class StreamProgress:
    """How far one stream is."""

    run: int
    shard: int
    jobid: int
    sent: int
    acknowledged: int
    total: int  # rows of the shard that are committed so far
    warnings: int
    size_bytes: int
    ended: bool
    dataset: str = ""
    idle_s: float = 0.0  # without a receipt, while some are awaited


class StreamMeasures:
    """Told by the bridge's server when a stream is over; sampled by any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._over: dict[tuple[str, str], Counter[str]] = {}  # by dataset and shard
        self._refused = 0
        self.joins = Durations("forebay_join_seconds")
        self.segment_reads = Durations("forebay_segment_read_seconds")
        self.receipts_commits = Durations("forebay_receipts_commit_seconds")

    def refused(self) -> None:
        """A job got no stream."""
        with self._lock:
            self._refused += 1

    def over(self, last: StreamProgress, *, is_whole: bool) -> None:
        """A stream is over; from now on nobody counts it as live."""
        with self._lock:
            total = self._over.setdefault(_labels(last), Counter())
            total.update(_counts(last))
            total["completed" if is_whole else "broken"] += 1

    def samples(self, live: Callable[[], Iterable[StreamProgress]]) -> list[Sample]:
        """Return what streams have done. live must not see a stream that over() was told of."""
        found = (
            self.joins.samples() + self.segment_reads.samples() + self.receipts_commits.samples()
        )
        with self._lock:
            totals = {labels: Counter(counts) for labels, counts in self._over.items()}
            refused = self._refused
        now: dict[tuple[str, str], list[StreamProgress]] = {}
        for stream in live():
            totals.setdefault(_labels(stream), Counter()).update(_counts(stream))
            now.setdefault(_labels(stream), []).append(stream)
        found.append(Sample("forebay_joins_refused_total", refused))
        for labels, counts in totals.items():
            found += [
                Sample(f"forebay_stream_{what}_total", counts[what], labels) for what in _TOTALS
            ]
            found += _live(labels, now.get(labels, []))
        return found


_TOTALS = ("sent", "acknowledged", "bytes", "warnings", "completed", "broken")


def _labels(stream: StreamProgress) -> tuple[str, str]:
    return stream.dataset, str(stream.shard)


def _counts(stream: StreamProgress) -> dict[str, int]:
    return {
        "sent": stream.sent,
        "acknowledged": stream.acknowledged,
        "bytes": stream.size_bytes,
        "warnings": stream.warnings,
    }


def _live(labels: tuple[str, str], streams: list[StreamProgress]) -> list[Sample]:
    values = {
        "live": float(len(streams)),
        "known_entries": sum(stream.total for stream in streams),
        "waiting_entries": sum(stream.sent - stream.acknowledged for stream in streams),
        "idle_seconds": max((stream.idle_s for stream in streams), default=0.0),
    }
    return [Sample(f"forebay_stream_{what}", value, labels) for what, value in values.items()]
