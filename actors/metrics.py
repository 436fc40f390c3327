"""Metrics of the actors: a thread in each samples plain values and gives them to Ray.

Covers: ray.util.metrics, how often, what happens when something cannot be sampled.
Does not cover: which metrics there are (shards.metric_catalogue), their values (the *_measures
modules). Nothing is called for a file, an entry or a batch.
"""

from __future__ import annotations

import functools
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress

import ray
from ray.util import metrics

from bacula_bridge.catalog import Catalog
from bacula_bridge.server import BridgeServer
from filesystems.change_measures import ChangeMeasures
from filesystems.scan_measures import ScanMeasures
from shards.errors import ForebayError
from shards.ledger_measures import LedgerMeasures
from shards.measures import Kind, Sample
from shards.metric_catalogue import METRICS, SECONDS_BOUNDARIES
from shards.process_measures import ProcessMeasures
from shards.state import StateDirectory
from shards.state_measures import StateMeasures

Sampler = Callable[[], Iterable[Sample]]

# Ray passes values on every ten seconds, if this does not say otherwise.
INTERVAL_VARIABLE = "RAY_metrics_report_interval_ms"
INTERVAL_MS = 10_000
PERIOD_MIN_S, PERIOD_MAX_S = 0.5, 30.0
STOP_TIMEOUT_S = 5.0
BUG_PAUSE_S = 3600.0  # a sampler with a bug is tried again so much later: a traceback an hour

_log = logging.getLogger("forebay.metrics")


def period_s() -> float:
    """Return how often to sample: twice for each time that Ray passes values on."""
    text = os.environ.get(INTERVAL_VARIABLE, "")
    interval_ms = int(text) if text.isascii() and text.isdigit() else INTERVAL_MS
    return min(max(interval_ms / 2_000, PERIOD_MIN_S), PERIOD_MAX_S)


class Exporter:
    """Gives samples to Ray, which makes the differences that its counters want."""

    def __init__(self) -> None:
        self._made: dict[str, metrics.Counter | metrics.Gauge | metrics.Histogram] = {}
        self._before: dict[tuple[str, tuple[str, ...]], float] = {}  # totals of counters
        self._lock = threading.Lock()

    def export(self, samples: Iterable[Sample]) -> None:
        with self._lock:
            for sample in samples:
                self._export(sample)

    def _export(self, sample: Sample) -> None:
        metric = METRICS[sample.name]
        assert len(sample.labels) == len(metric.labels), sample
        tags = dict(zip(metric.labels, sample.labels, strict=True))
        made = self._metric(sample.name)
        if isinstance(made, metrics.Counter):
            self._count(made, sample, tags)
        elif isinstance(made, metrics.Histogram):
            made.observe(sample.value, tags)
        else:
            made.set(sample.value, tags)

    def _count(self, counter: metrics.Counter, sample: Sample, tags: dict[str, str]) -> None:
        key = (sample.name, sample.labels)
        before = self._before.get(key)
        self._before[key] = sample.value
        if before is None and not sample.value:
            # A counter that springs from nothing to 1 has no increase() for Prometheus, and
            # inc(0) is refused. Not public, but what inc() calls.
            counter._record(0, tags=tags)
            return
        increase = sample.value - (before or 0.0)
        if increase < 0:  # what counts was made anew in this process
            increase = sample.value
        if increase > 0:
            counter.inc(increase, tags)

    def _metric(self, name: str) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
        if name not in self._made:
            metric = METRICS[name]
            arguments = {"description": metric.help, "tag_keys": metric.labels}
            match metric.kind:
                case Kind.COUNTER:
                    self._made[name] = metrics.Counter(name, **arguments)
                case Kind.GAUGE:
                    self._made[name] = metrics.Gauge(name, **arguments)
                case Kind.HISTOGRAM:
                    boundaries = list(SECONDS_BOUNDARIES)
                    self._made[name] = metrics.Histogram(name, boundaries=boundaries, **arguments)
        return self._made[name]


@functools.cache
def process_exporter() -> Exporter:
    """Return the one of this process: an actor may be closed and opened again."""
    return Exporter()


class Metrics:
    """The thread of one actor; it ends with stop(), or with its process."""

    def __init__(
        self, actor: str, samplers: Sequence[Sampler], exporter: Exporter | None = None
    ) -> None:
        self._actor = actor
        self._samplers = [ProcessMeasures(actor).samples, *samplers]
        self._errors = 0
        self._said: set[str] = set()
        self._paused: dict[int, float] = {}  # samplers with a bug, until when
        self._is_bug = False
        self._took_s = 0.0
        self._exporter = exporter or process_exporter()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it: Ray would not pass on what is sampled now."""
        self._stopping.set()
        self._thread.join(STOP_TIMEOUT_S)

    def _run(self) -> None:
        period = period_s()
        while not self._stopping.is_set():
            self._sample()
            self._stopping.wait(period)

    def _sample(self) -> None:
        self._took_s = 0.0
        for place, sampler in enumerate(self._samplers):
            if time.monotonic() < self._paused.get(place, 0.0):
                self._errors += 1  # what is missing is missing still
                continue
            self._is_bug = True
            # A bug ends this thread alone: Python writes its traceback to the actor's log.
            thread = threading.Thread(
                target=self._take, args=(sampler,), name="sample", daemon=True
            )
            thread.start()
            thread.join()
            if self._is_bug:
                self._failed("a mistake of ours, with its traceback in the actor's log")
                self._paused[place] = time.monotonic() + BUG_PAUSE_S
        self._exporter.export(
            [
                Sample("forebay_metrics_sample_seconds", self._took_s, (self._actor,)),
                Sample("forebay_metrics_errors_total", self._errors, (self._actor,)),
            ]
        )

    def _take(self, sampler: Sampler) -> None:
        try:
            self._exporter.export(sampler())
            self._is_bug = False
        except (ForebayError, OSError, sqlite3.Error) as error:
            self._is_bug = False
            self._failed(str(error))
        finally:
            self._took_s += time.thread_time()  # all that this thread has done

    def _failed(self, why: str) -> None:
        self._errors += 1
        if why not in self._said:  # each sentence once
            self._said.add(why)
            _log.warning("metrics of %s are incomplete: %s", self._actor, why)


def actor_name(kind: str) -> str:
    """Return the name of the actor that this process is; its kind if it has none."""
    with suppress(AssertionError, RuntimeError):  # no actor: a test
        return ray.get_runtime_context().get_actor_name() or kind
    return kind


def coordinator_metrics(
    state: StateDirectory, catalog: Catalog, datasets: Collection[str] | None
) -> Metrics:
    """Begin to sample the ledger, the change logs and the state directory.

    datasets: those that a service has configured; None: all that the ledger has.
    """
    name = actor_name("coordinator")
    return Metrics(
        name,
        [
            LedgerMeasures(state.ledger, datasets).samples,
            ChangeMeasures(state.changes("")).samples,
            StateMeasures(state).samples,
            lambda: catalog_samples(catalog, name),
        ],
    )


def bridge_metrics(server: BridgeServer, catalog: Catalog) -> Metrics:
    """Begin to sample a bridge."""
    name = actor_name("bridge")
    return Metrics(
        name,
        [
            server.samples,
            lambda: [Sample("forebay_bridge_connections", server.connections, (name,))],
            lambda: catalog_samples(catalog, name),
        ],
    )


def walker_metrics(measures: ScanMeasures) -> Metrics:
    """Begin to sample a walker."""
    return Metrics(actor_name("walker"), [measures.samples])


def catalog_samples(catalog: Catalog, actor: str) -> list[Sample]:
    """Take how long the catalog's answers took."""
    return [
        Sample("forebay_catalog_query_seconds", seconds, (actor,))
        for seconds in catalog.take_durations()
    ]
