"""What actors give to Ray of what they sample; without a Ray."""

import threading

import pytest

from actors import metrics
from actors.metrics import Exporter, Metrics, period_s
from actors.walker import WalkerActor
from filesystems.scan_measures import ScanMeasures
from shards.errors import ForebayError
from shards.ledger import Lease
from shards.measures import Sample
from shards.process_measures import ProcessMeasures

DEADLINE_S = 20.0


class Recorded:
    """Stands for Ray's metrics: what each was told."""

    def __init__(self):
        told = self.told = []

        class Metric:
            def __init__(self, name, boundaries=None, *, description, tag_keys):
                self.name, self.tag_keys = name, tag_keys

            def _tell(self, how, value, tags):
                assert tuple(tags) == self.tag_keys
                told.append((self.name, how, value, tags))

        class Counter(Metric):
            def inc(self, value, tags):
                assert value > 0, "Ray refuses it"
                self._tell("inc", value, tags)

            def _record(self, value, tags):
                self._tell("record", value, tags)

        class Gauge(Metric):
            def set(self, value, tags):
                self._tell("set", value, tags)

        class Histogram(Metric):
            def observe(self, value, tags):
                self._tell("observe", value, tags)

        self.Counter, self.Gauge, self.Histogram = Counter, Gauge, Histogram

    def of(self, name):
        return [(how, value) for told, how, value, _ in self.told if told == name]


@pytest.fixture
def recorded(monkeypatch):
    recorded = Recorded()
    monkeypatch.setattr(metrics, "metrics", recorded)
    return recorded


def test_a_counter_is_told_what_came_since_the_last_time(recorded):
    exporter, name = Exporter(), "forebay_stream_bytes_total"
    for value in (0, 0, 7, 7, 10):
        exporter.export([Sample(name, value, ("d", "1"))])
    assert recorded.of(name) == [("record", 0), ("inc", 7), ("inc", 3)]
    assert recorded.told[0][3] == {"dataset": "d", "shard": "1"}


def test_a_counter_that_begins_anew_goes_on(recorded):
    exporter, name = Exporter(), "forebay_stream_bytes_total"
    for value in (10, 4, 6):
        exporter.export([Sample(name, value, ("d", "1"))])
    assert recorded.of(name) == [("inc", 10), ("inc", 4), ("inc", 2)]


def test_an_actor_that_is_opened_again_counts_nothing_twice():
    assert metrics.process_exporter() is metrics.process_exporter()


def test_counters_of_other_labels_are_others(recorded):
    exporter, name = Exporter(), "forebay_stream_bytes_total"
    exporter.export([Sample(name, 5, ("d", "0")), Sample(name, 6, ("d", "1"))])
    exporter.export([Sample(name, 5, ("d", "0")), Sample(name, 9, ("d", "1"))])
    assert recorded.of(name) == [("inc", 5), ("inc", 6), ("inc", 3)]


def test_gauges_are_set_and_durations_observed(recorded):
    exporter = Exporter()
    for value in (3, 3):
        exporter.export([Sample("forebay_run_open", value, ("d",))])
        exporter.export([Sample("forebay_join_seconds", value)])
    assert recorded.of("forebay_run_open") == [("set", 3), ("set", 3)]
    assert recorded.of("forebay_join_seconds") == [("observe", 3), ("observe", 3)]


def test_what_cannot_be_sampled_is_counted_and_the_rest_goes_on(recorded, monkeypatch):
    monkeypatch.setattr(metrics, "period_s", lambda: 0.01)
    rounds = threading.Event()

    def failing():
        raise ForebayError("the disk is gone")

    def after():
        if len(recorded.of("forebay_metrics_errors_total")) > 2:
            rounds.set()
        return [Sample("forebay_run_open", 1, ("d",))]

    sampled = Metrics("bridge", [failing, after], Exporter())
    assert rounds.wait(DEADLINE_S)
    sampled.stop()
    assert not sampled._thread.is_alive()
    assert recorded.of("forebay_run_open")
    assert recorded.of("forebay_metrics_errors_total")[:3] == [("inc", 1)] * 3
    assert recorded.of("forebay_process_threads")


def test_a_bug_in_a_sampler_is_seen_and_the_rest_goes_on(recorded, monkeypatch):
    monkeypatch.setattr(metrics, "period_s", lambda: 0.01)
    tracebacks, calls = [], []
    monkeypatch.setattr(threading, "excepthook", tracebacks.append)
    rounds = threading.Event()

    def broken():
        calls.append(1)
        raise KeyError("a bug")

    def after():
        if len(recorded.of("forebay_metrics_errors_total")) > 3:
            rounds.set()
        return [Sample("forebay_run_open", 1, ("d",))]

    sampled = Metrics("bridge", [broken, after], Exporter())
    assert rounds.wait(DEADLINE_S)
    sampled.stop()
    assert not sampled._thread.is_alive()
    assert [hook.exc_type for hook in tracebacks] == [KeyError]
    assert len(calls) == 1  # an hour later again
    assert recorded.of("forebay_metrics_errors_total")[:3] == [("inc", 1)] * 3
    sampled._paused.clear()
    sampled._sample()
    assert len(calls) == len(tracebacks) == 2


@pytest.mark.parametrize(
    ("interval", "period"), [("", 5.0), ("1000", 0.5), ("10", 0.5), ("600000", 30.0), ("x", 5.0)]
)
def test_it_samples_twice_for_each_report_of_ray(monkeypatch, interval, period):
    monkeypatch.setenv(metrics.INTERVAL_VARIABLE, interval)
    assert period_s() == period


def test_a_sampler_may_be_of_any_actor():
    assert {sample.labels for sample in ProcessMeasures("walker-3").samples()} == {("walker-3",)}


def test_a_walker_says_what_it_does():
    measures = ScanMeasures(3)
    # Without its process, and without __init__, which asks for a coordinator.
    walker = object.__new__(WalkerActor.__ray_metadata__.modified_class)
    walker._target, walker._measures = 3, measures
    assert repr(walker) == "walker of target 3"
    measures.walking(Lease(1, 1, 1, b"/", 1, 0, (), False, dataset="scratch"))
    assert repr(walker) == "walker of target 3: walking scratch"
