"""`forebay top` shows what the ledger has, and live streams where somebody can be asked."""

import io
import json
import sys

import pytest
from rich.console import Console

from bacula_bridge.server import StreamProgress
from cluster import cli
from cluster.live import NoLiveSource, Observer
from cluster.settings import Settings
from cluster.top_screen import SHARDS_SHOWN, screen
from shards.errors import ForebayError
from tests.support.receipts import receipt
from tests.support.report_world import ReportWorld

WIDTHS = (80, 132, 140)


class Streams:
    """A live source that says what it was told."""

    def __init__(self):
        self.now = []

    def streams(self):
        if isinstance(self.now, ForebayError):
            raise self.now
        return self.now


@pytest.fixture
def world(tmp_path, monkeypatch):
    with ReportWorld(tmp_path, monkeypatch) as world:
        yield world


def stream(world, shard, jobid, names, total, size, warnings=0, run=None):
    run = world.run if run is None else run
    return StreamProgress(run, shard, jobid, names, names, total, warnings, size, False)


def drawn(view, width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    console.print(screen(view, width))
    lines = console.file.getvalue().splitlines()
    assert all(len(line) <= width for line in lines), lines
    return [line.rstrip() for line in lines]


def observer(world, source):
    return Observer(world.settings, source, clock=lambda: world.now)


def start(world):
    world.open_run(targets=2)
    world.walk(0, 4.0, 1000, frontier=[0] * 8 + [1], errors=2)
    world.ledger.take_lease(0, "walker:0", world.epochs[0])
    world.join(0, 21)
    world.join(1, 22)


def test_an_open_run_is_shown_with_its_scan_its_walkers_and_its_lag(world):
    start(world)
    source = Streams()
    source.now = [stream(world, 0, 21, 100, 400, 1 << 20), stream(world, 9, 9, 1, 500, 1, run=99)]
    world.now += 6
    (run,) = observer(world, source).look().runs
    assert (run.scanned, run.scan_errors, run.scan_ended) == (1000, 2, False)
    assert run.scanned_per_s == pytest.approx(100)  # 10 s since the run began
    assert run.pending == 3
    assert [(one.target, one.leases, one.oldest_s) for one in run.walkers] == [("0", 1, 6.0)]
    assert run.lag == 300
    assert run.shards[0].names_per_s == pytest.approx(100 / 6)


def test_rates_are_between_two_looks(world):
    start(world)
    source = Streams()
    looking = observer(world, source)
    source.now = [stream(world, 0, 21, 100, 400, 1000)]
    world.now += 10
    looking.look()
    source.now = [stream(world, 0, 21, 300, 400, 9000)]
    world.now += 2
    (run,) = looking.look().runs
    assert run.shards[0].names_per_s == pytest.approx(100)
    assert run.shards[0].bytes_per_s == pytest.approx(4000)
    assert run.scanned_per_s == 0


def test_where_nobody_can_be_asked_the_ledger_is_all(world):
    start(world)
    world.now += 5
    (run,) = observer(world, NoLiveSource()).look().runs
    assert run.lag is None
    assert [(one.state, one.total, one.bytes_per_s) for one in run.shards] == [
        ("streaming", None, None)
    ] * 2


def test_a_source_that_fails_is_said_and_the_rest_is_shown(world):
    start(world)
    source = Streams()
    source.now = ForebayError("the service does not answer")
    view = observer(world, source).look()
    assert view.trouble == "the service does not answer"
    assert len(view.runs) == 1
    assert "the live streams are unknown: the service does not answer" in drawn(view, 80)


def test_jobs_that_are_over_are_whole_or_say_why_not(world):
    start(world)
    world.receive(21, [receipt(b"a", file_index=1, sent_bytes=4096)])
    world.now += 4
    world.finish(0, 21, started=world.now - 4)
    world.jobs.broken(world.run, 1, 22, "the bridge is stopping")
    view = observer(world, NoLiveSource()).look()
    good, bad = view.runs[0].shards
    assert (good.state, good.names, good.total, good.bytes_per_s) == ("good", 1, 1, 1024.0)
    assert (bad.state, bad.reason) == ("bad", "the bridge is stopping")
    lines = drawn(view, 80)
    assert any("100%" in line for line in lines)
    assert "shard 1, JobId 22: the bridge is stopping" in lines


def test_datasets_are_shown_with_their_last_good_run(world):
    assert observer(world, NoLiveSource()).look().datasets[0].good_run is None
    for _ in range(2):
        world.open_run()
        world.walk(0, 1.0, 1)
        if world.run == 1:
            for shard in range(world.shards):
                world.join(shard, shard + 1)
                world.finish(shard, shard + 1)
        world.end_run()
    world.now += 3600
    (dataset,) = observer(world, NoLiveSource()).look().datasets
    assert (dataset.last_run, dataset.last_state, dataset.last_age_s) == (2, "failed", 3600.0)
    assert (dataset.good_run, dataset.good_age_s) == (1, 3602.0)


@pytest.mark.parametrize("width", WIDTHS)
def test_the_largest_figures_fit(tmp_path, monkeypatch, width):
    with ReportWorld(tmp_path, monkeypatch, shards=64) as world:
        world.open_run()
        for shard in range(64):
            world.join(shard, 12_345_600 + shard)
        source = Streams()
        source.now = [
            stream(world, n, 12_345_600 + n, 98_765_432_109, 123_456_789_012, 1 << 52, 9_999)
            for n in range(64)
        ]
        world.now += 5
        lines = drawn(observer(world, source).look(), width)
    row = next(line for line in lines if "12345600" in line)
    for figure in ("98,765.4 M", "80%", "4096.0 TiB", "819.2 TiB/s", "9,999"):
        assert figure in row, row
    assert ("123,456.8 M" in row) == (width >= 132)
    assert f"and {64 - SHARDS_SHOWN} more" in lines


def run_top(monkeypatch, home, *arguments):
    monkeypatch.setenv("FOREBAY_HOME", str(home))
    monkeypatch.setattr(sys, "argv", ["forebay", "top", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize("arguments", [(), ("--once",)])
def test_without_a_terminal_it_looks_once_while_the_ledger_is_open_for_writing(
    world, monkeypatch, capsys, arguments
):
    start(world)
    assert run_top(monkeypatch, world.settings.home, *arguments) == 0
    printed = capsys.readouterr().out
    assert "home, run 1" in printed
    assert "streaming" in printed
    assert "\x1b" not in printed


def test_json_is_one_object(world, monkeypatch, capsys):
    start(world)
    assert run_top(monkeypatch, world.settings.home, "--json") == 0
    view = json.loads(capsys.readouterr().out)
    assert view["runs"][0]["shards"][1]["jobid"] == 22
    assert view["datasets"][0]["dataset"] == "home"


def test_where_nothing_was_ever_backed_up_there_is_nothing_to_show(monkeypatch, tmp_path, capsys):
    assert run_top(monkeypatch, tmp_path) == 0
    assert "none yet" in capsys.readouterr().out
    assert not Settings(tmp_path).state.ledger.exists()


def test_an_interval_is_bounded(monkeypatch, tmp_path):
    assert run_top(monkeypatch, tmp_path, "--interval", "0") == 2
