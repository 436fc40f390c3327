"""How what happens is measured: plain values, taken by whoever exports them.

Covers: what a metric is, a sample of one, durations kept until they are taken, threads apart.
Does not cover: which metrics there are (metric_catalogue), exporting them (actors.metrics).
"""

from __future__ import annotations

import enum
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

# Of one kind, between two samplings; older ones are dropped. Every one of them is an observation
# of a histogram that is told one by one.
DURATIONS_MAX = 2_048


class Kind(enum.StrEnum):
    """What Prometheus does with it."""

    COUNTER = "counter"  # the total since its process started
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of the catalogue."""

    name: str
    kind: Kind
    unit: str
    labels: tuple[str, ...]
    help: str


class Sample(NamedTuple):
    """A value of a metric; of a counter the total, of a histogram one observation."""

    name: str
    value: float
    labels: tuple[str, ...] = ()  # values, in the order of the metric's labels


class Durations:
    """How long each of the last ones took. Any thread may add; one takes."""

    def __init__(self, name: str, *labels: str) -> None:
        self._name = name
        self._labels = labels
        # Appending and popping are atomic: a lock would cost more, and could not be pickled.
        self._seconds: deque[float] = deque(maxlen=DURATIONS_MAX)

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)

    @contextmanager
    def measure(self) -> Iterator[None]:
        """Measure what is done, also when it fails."""
        started = time.monotonic()
        try:
            yield
        finally:
            self._seconds.append(time.monotonic() - started)

    def samples(self) -> list[Sample]:
        """Take what was measured since the last call."""
        taken = []
        for _ in range(len(self._seconds)):
            taken.append(Sample(self._name, self._seconds.popleft(), self._labels))
        return taken
