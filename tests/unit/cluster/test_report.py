"""A report's figures are the run's, and no name breaks out of its page."""

import html.parser
import json
import os
import re
import sys

import pytest

from cluster import busiest, cli, report_figures
from cluster.records import find_run
from cluster.report_charts import axis, time_step
from cluster.report_figures import balance, make_report, report_json
from cluster.report_page import POLICY, REASONS, report_page
from shards.schema import WARNING_STATUSES, ReceiptStatus
from tests.support.receipts import receipt
from tests.support.report_world import START, ReportWorld

EVIL = (
    b"d/<script>alert(1)</script>",
    b'd/"><img src=http://example.com/x onerror=alert(1)>',
    b"d/'&amp;\xff\xfe\n\r\t\x00\x1b[31m",
    "d/\u202egnp.exe\u2028".encode(),
    b"</style></title><svg/onload=alert(1)>/x",
    b"d/" + b"long" * 300,
)
SECONDS = 10.0


@pytest.fixture
def world(tmp_path, monkeypatch):
    with ReportWorld(tmp_path, monkeypatch) as world:
        yield world


def one_run(world):
    """Make a run of two shards: 300 names scanned, 1000 and 3000 bytes saved, three warnings."""
    world.open_run(targets=2)
    world.walk(0, 2.0, 100, frontier=[1], size_bytes=3000)
    world.walk(1, 5.0, 200, errors=1, size_bytes=1000)
    world.join(0, 11)
    world.join(1, 12, level="I", chain=(3,), note="incremental on JobId 3")
    world.now += SECONDS
    world.receive(11, [receipt(b"a/b/%d" % n, file_index=1, sent_bytes=100) for n in range(10)])
    world.receive(
        12,
        [
            receipt(b"a/large", file_index=1, sent_bytes=3000),
            receipt(b"a/locked", ReceiptStatus.UNREADABLE, error=13),
            receipt(b"a/locked too", ReceiptStatus.UNREADABLE, error=13),
            receipt(b"a/gone", ReceiptStatus.VANISHED, error=2),
            receipt(b"a", file_index=2, mode=0o040755),
        ],
    )
    world.finish(0, 11)
    world.now += SECONDS
    world.finish(1, 12)
    world.end_run()
    return find_run(world.settings, str(world.run))


def test_the_figures_are_the_runs(world):
    record = one_run(world)
    figures = report_json(make_report(world.settings, record))
    assert figures["state"] == "warnings"
    throughput = figures["throughput"]
    assert sum(throughput["saved_bytes"]) == pytest.approx(4000, abs=60)
    assert sum(throughput["saved_names"]) == pytest.approx(12, abs=0.1)
    assert sum(throughput["scanned_names"]) == pytest.approx(300, abs=0.1)
    assert (throughput["jobs_measured"], throughput["jobs"]) == (2, 2)
    assert throughput["started"] == START
    assert [one["target"] for one in figures["targets"]] == ["1", "0"]  # the slowest first
    slowest = figures["targets"][0]
    assert (slowest["inodes"], slowest["errors"], slowest["seconds"]) == (200, 1, 5.0)
    assert figures["balance"]["data"] == 1.5
    names = figures["names"]
    assert [(group["status"], group["errno"], group["count"]) for group in names["warnings"]] == [
        ("UNREADABLE", 13, 2),
        ("VANISHED", 2, 1),
    ]
    assert names["warnings"][0]["first"] == ["a/locked", "a/locked too"]
    assert names["directories_by_bytes"] == [
        {"path": "a", "bytes": 3000},
        {"path": "a/b", "bytes": 1000},
    ]
    assert names["directories_by_names"][0] == {"path": "a/b", "names": 10}
    assert names["missing_bytes"] == names["missing_names"] == 0


def test_when_something_was_done_is_where_the_chart_shows_it(world):
    throughput = report_json(make_report(world.settings, one_run(world)))["throughput"]
    width = throughput["sample_seconds"]
    scanned_until = max(n for n, value in enumerate(throughput["scanned_names"]) if value) * width
    saved_from = min(n for n, value in enumerate(throughput["saved_bytes"]) if value) * width
    assert scanned_until == pytest.approx(7, abs=2 * width)  # two leases: 2 s, then 5 s
    assert saved_from == pytest.approx(7, abs=2 * width)


def test_there_are_so_many_groups_of_warnings_and_so_many_names(world, monkeypatch):
    monkeypatch.setattr(report_figures, "GROUPS_MAX", 2)
    world.open_run()
    world.walk(0, 1.0, 1)
    world.join(0, 1)
    for error, count in ((1, 30), (2, 20), (3, 10)):
        many = [receipt(b"%d-%d" % (error, n), 4, error=error) for n in range(count)]
        world.receive(1, many[:7])
        world.receive(1, many[7:])
    world.finish(0, 1)
    world.end_run()
    record = find_run(world.settings, str(world.run))
    names = report_json(make_report(world.settings, record))["names"]
    assert [(group["errno"], group["count"]) for group in names["warnings"]] == [(1, 30), (2, 20)]
    assert names["warnings"][0]["first"] == ["1-0", "1-1", "1-2", "1-3", "1-4"]
    assert names["warnings_ungrouped"] == 10
    page = report_page(make_report(world.settings, record))
    assert "10 more for other reasons" in page
    assert "and 25 more" in page


def test_what_was_not_counted_exactly_is_said(world, monkeypatch):
    monkeypatch.setattr(busiest.Busiest.__init__, "__defaults__", (4, 1 << 20))
    world.open_run()
    world.walk(0, 1.0, 1)
    world.join(0, 1)
    world.receive(1, [receipt(b"%d/x" % n, file_index=1, sent_bytes=n) for n in range(9)])
    world.finish(0, 1)
    world.end_run()
    report = make_report(world.settings, find_run(world.settings, str(world.run)))
    assert report.names.missing_names == 1
    assert "may lack in each" in report_page(report)


class Reader(html.parser.HTMLParser):
    """All elements, attributes and text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.text, self.open = set(), [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "rect", "path", "line"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "main", "header", "footer", "section"),
    *("h1", "h2", "h3", "p", "br", "div", "span", "strong", "figure", "figcaption", "ul", "li"),
    *("table", "thead", "tbody", "tr", "th", "td", "svg", "rect", "path", "line"),
}


def test_no_name_breaks_out_of_the_page(world):
    world.open_run()
    world.walk(0, 1.0, 1)
    world.join(0, 1, job="<b>job</b>", note="<script>note</script>\u202e\n")
    world.receive(1, [receipt(path, ReceiptStatus.UNREADABLE, error=5) for path in EVIL[:5]])
    world.receive(1, [receipt(path + b"/x", file_index=1, sent_bytes=9) for path in EVIL])
    world.finish(0, 1)
    world.jobs.claim(world.run, 1, _claim(2), 1)
    world.jobs.broken(world.run, 1, 2, "<img src=x onerror=alert(1)>")
    world.end_run()
    page = report_page(make_report(world.settings, find_run(world.settings, str(world.run))))
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    assert reader.tags <= ELEMENTS
    names = {name for name, _ in reader.attributes}
    assert not [name for name in names if name.startswith("on")]
    assert not names & {"href", "src", "xlink:href", "action", "srcdoc"}
    assert ("content", POLICY) in reader.attributes
    assert not re.search(r"url\(|@import", page)
    assert all(c.isprintable() or c == "\n" for c in page)
    said = "".join(reader.text)
    for shown in ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\\u202egnp.exe"):
        assert shown in said


def _claim(jobid):
    from shards.shard_jobs import Claim

    return Claim(jobid, f"job.{jobid}", "F")


def test_a_run_that_saved_nothing_has_a_page(world):
    world.open_run()
    world.end_run()
    report = make_report(world.settings, find_run(world.settings, str(world.run)))
    page = report_page(report)
    assert "Failed: no backup" in page
    assert f"forebay backup --resume {world.run}" in page
    assert report_json(report)["throughput"] is None
    assert balance([]) == {"data": None, "names": None, "time": None}


def test_an_open_run_has_a_page(world):
    world.open_run()
    world.walk(0, 1.0, 5, frontier=[0])
    world.join(0, 1)
    page = report_page(make_report(world.settings, find_run(world.settings, str(world.run))))
    assert "Not ended yet" in page


def test_every_reason_for_a_warning_has_a_sentence():
    assert set(REASONS) == WARNING_STATUSES


def run_cli(world, monkeypatch, *arguments):
    monkeypatch.setenv("FOREBAY_HOME", str(world.settings.home))
    monkeypatch.setattr(sys, "argv", ["forebay", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_command_writes_a_page_for_its_owner_alone(world, monkeypatch, tmp_path, capsys):
    record = one_run(world)
    path = tmp_path / "run.html"
    assert run_cli(world, monkeypatch, "report", "latest", "--html", path, "--json") == 0
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.read_text().startswith("<!DOCTYPE html>")
    printed = capsys.readouterr()
    figures = json.loads(printed.out)
    expected = report_json(make_report(world.settings, record))
    assert figures == json.loads(json.dumps(expected | {"made": figures["made"]}))
    assert str(path) in printed.err
    assert [name for name in os.listdir(tmp_path) if name.startswith(".forebay")] == []


def test_quick_reads_no_receipts(world, monkeypatch, tmp_path, capsys):
    record = one_run(world)
    for path in world.settings.state.receipts(record.run.number).iterdir():
        path.write_bytes(b"damaged")
    assert run_cli(world, monkeypatch, "report", "1", "--json", "--quick") == 0
    assert json.loads(capsys.readouterr().out)["names"] is None
    assert run_cli(world, monkeypatch, "report", "1", "--json") == 1
    assert "are damaged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("report", "1"), "--html FILE"),
        (("report", "99", "--json"), "there is no run 99"),
        (("report", "x", "--json"), "x is not a run"),
        (("report", "1", "--html", "/nowhere/at/all.html"), "cannot write the report"),
    ],
)
def test_what_cannot_be_is_one_sentence(world, monkeypatch, capsys, arguments, said):
    one_run(world)
    assert run_cli(world, monkeypatch, *arguments) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("largest", [0, 0.3, 1, 7, 999, 1024, 1e6, 123_456_789, 9.9e15])
@pytest.mark.parametrize("size", [True, False])
def test_an_axis_holds_the_largest_rate_in_a_few_distinct_steps(largest, size):
    chosen = axis(largest, size=size)
    labels = chosen.labels()
    assert chosen.top * chosen.scale >= largest * 0.999
    assert 2 <= len(labels) == len(set(labels)) <= 6
    steps = [float(label.replace(",", "")) for label in labels]
    assert steps == pytest.approx([chosen.step * number for number in range(len(labels))])
    assert all(len(label) <= 9 for label in labels) or (largest > 1e15 and not size)


@pytest.mark.parametrize("seconds", [0.25, 1, 59, 61, 3600, 86_400, 30 * 86_400])
def test_an_axis_of_time_has_a_few_labels(seconds):
    assert 1 <= seconds / time_step(seconds) <= 8
