"""Series stay short and lose nothing; the ledger keeps one for each walker and each job."""

import sqlite3
from contextlib import closing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.ledger import Ledger
from shards.throughput import (
    SAMPLES_MAX,
    WIDTH_FIRST_S,
    Series,
    on_one_axis,
    open_leases,
    scan_times,
    stream_times,
)
from tests.support.receipts import receipt
from tests.support.report_world import START, ReportWorld

moments = st.floats(min_value=0, max_value=1e6)
amounts = st.integers(min_value=0, max_value=10**9)
added = st.lists(st.tuples(moments, moments, amounts, amounts), min_size=1, max_size=40)


def series_of(parts):
    series = Series()
    for begin, length, names, size in parts:
        series.add(START + begin, START + begin + length, names, size)
    return series


@given(added)
def test_a_series_is_short_and_loses_nothing(parts):
    series = series_of(parts)
    assert len(series.names) == len(series.bytes) <= SAMPLES_MAX
    assert sum(series.names) == pytest.approx(sum(part[2] for part in parts))
    assert sum(series.bytes) == pytest.approx(sum(part[3] for part in parts))
    last = max(begin + length for begin, length, *_ in parts)
    assert series.end > START + last - 1e-3


@given(added, added, st.integers(min_value=1, max_value=200))
def test_series_on_one_axis_lose_nothing(one, other, samples):
    several = [series_of(one), series_of(other)]
    start = min(series.start for series in several)
    end = max(series.end for series in several)
    made = on_one_axis(several, start, end, samples)
    assert len(made.names) == samples
    assert sum(made.names) == pytest.approx(sum(sum(series.names) for series in several))
    assert sum(made.bytes) == pytest.approx(sum(sum(series.bytes) for series in several))


def test_what_took_long_is_spread_over_its_time():
    series = Series()
    series.add(START, START + 1, 4, 400)
    assert series.width_s == WIDTH_FIRST_S
    assert series.names == pytest.approx([1, 1, 1, 1, 0])
    assert series.bytes == pytest.approx([100, 100, 100, 100, 0])


def test_when_time_goes_on_each_two_samples_become_one():
    series = Series()
    for second in range(40):
        series.add(START + second, START + second + 1, 1, 0)
    assert series.width_s == 2 * WIDTH_FIRST_S
    assert series.names[:4] == pytest.approx([0.5, 0.5, 0.5, 0.5])


def test_a_clock_that_is_set_back_loses_nothing():
    series = Series()
    series.add(START, START + 1, 5, 50)
    series.add(START - 3600, START - 3599, 7, 70)
    assert sum(series.names) == pytest.approx(12)


def test_a_series_comes_back_from_json():
    series = series_of([(0, 3, 7, 1 << 40), (9, 1, 1, 1)])
    back = Series.from_json(series.to_json())
    assert (back.start, back.width_s) == (series.start, series.width_s)
    assert back.names == pytest.approx(series.names, abs=1e-5)
    assert back.bytes == pytest.approx(series.bytes, abs=1e-5)


@pytest.fixture
def world(tmp_path, monkeypatch):
    with ReportWorld(tmp_path, monkeypatch) as world:
        yield world


def test_the_ledger_adds_up_what_each_walkers_leases_took(world):
    run = world.open_run(targets=2)
    world.walk(0, 2.0, 100, frontier=[0, 1], size_bytes=1000)
    world.walk(1, 5.0, 10)
    world.walk(0, 1.0, 50)
    times = {one.role: one for one in scan_times(world.ledger.query, run)}
    assert {role: one.seconds for role, one in times.items()} == {"walker:0": 3, "walker:1": 5}
    assert sum(times["walker:0"].series.names) == pytest.approx(150)
    assert sum(times["walker:0"].series.bytes) == pytest.approx(1000)


def test_only_open_leases_have_times_of_their_own(world):
    run = world.open_run()
    world.walk(0, 1.0, 1, frontier=[0] * 8)
    world.ledger.take_lease(0, "walker:0", world.epochs[0])
    assert open_leases(world.ledger.query, run) == [("walker:0", world.now)]
    world.epochs[0] = world.ledger.take_epoch("walker:0")  # the walker died: its lease is lost
    assert open_leases(world.ledger.query, run) == []
    world.walk(0, 1.0, 1)
    assert world.ledger.query("SELECT COUNT(*) FROM lease_times")[0][0] == 0


def test_the_ledger_keeps_the_series_of_each_job(world):
    run = world.open_run()
    world.join(0, 7)
    world.now += 3
    world.receive(7, [receipt(b"a", file_index=1, sent_bytes=500), receipt(b"b", status=5)])
    world.finish(0, 7)
    series = stream_times(world.ledger.query, run)[(0, 7)]
    assert sum(series.bytes) == pytest.approx(500)
    assert sum(series.names) == pytest.approx(1, abs=1e-4)  # what vanished was not saved
    assert (series.start, series.end) == (START, pytest.approx(START + 3, abs=2 * WIDTH_FIRST_S))


def test_a_ledger_of_before_has_no_times_and_gets_the_tables_when_it_is_written(world):
    run = world.open_run()
    world.walk(0, 1.0, 1, frontier=[0])
    lease = world.ledger.take_lease(0, "walker:0", world.epochs[0])
    world.close()
    path = world.settings.state.ledger
    with closing(sqlite3.connect(path)) as db:
        for table in ("lease_times", "scan_times", "stream_times"):
            db.execute(f"DROP TABLE {table}")
    with closing(Ledger(path, read_only=True)) as ledger:
        assert scan_times(ledger.query, run) == []
        assert stream_times(ledger.query, run) == {}
        assert open_leases(ledger.query, run) == [("walker:0", None)]
    world.ledger = Ledger(path)
    assert scan_times(world.ledger.query, run) == []
    assert lease is not None
