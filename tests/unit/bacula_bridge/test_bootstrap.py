"""Bootstrap files from made-up catalog rows."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bacula_bridge.bootstrap import RANGES_MAX, Ranges, bootstrap
from bacula_bridge.catalog import JobRow, Span
from bacula_bridge.errors import BootstrapImpossible


def job(job_id: int) -> JobRow:
    return JobRow(job_id, f"j.{job_id}", "j", "B", "F", "T", "", "", 0, 9, 9, 0, job_id, 777, "")


def span(job_id: int, first: int, last: int, start: int, volume: str = "v1") -> Span:
    return Span(job_id, volume, "File1", first, last, start, start + 99)


def test_an_element_is_written_for_each_span_and_neighbours_share_the_straddling_file():
    spans = {7: [span(7, 1, 5, 100), span(7, 5, 9, 200, "v2"), span(7, 10, 12, 300)]}
    text = "".join(bootstrap({7: Ranges.of([5, 3, 4, 9])}, {7: job(7)}, spans))
    assert text == (
        'Volume="v1"\nMediaType="File1"\nVolSessionId=7\nVolSessionTime=777\n'
        "VolAddr=100-199\nFileIndex=3-5\n"
        'Volume="v2"\nMediaType="File1"\nVolSessionId=7\nVolSessionTime=777\n'
        "VolAddr=200-299\nFileIndex=5\nFileIndex=9\n"
    )


def test_several_jobs_come_in_the_order_of_the_selection():
    spans = {1: [span(1, 1, 3, 0)], 2: [span(2, 1, 3, 0, "w")]}
    chosen = {2: Ranges.of([1]), 1: Ranges.of([2])}
    text = "".join(bootstrap(chosen, {1: job(1), 2: job(2)}, spans))
    assert re.findall(r"Volume=(\S+)", text) == ['"w"', '"v1"']


def test_an_element_never_holds_more_ranges_than_the_sd_can_search():
    count = RANGES_MAX * 2 + 5
    spans = {1: [span(1, 1, 2 * count, 0)]}
    chosen = {1: Ranges.of(range(1, 2 * count, 2))}
    elements = list(bootstrap(chosen, {1: job(1)}, spans))
    assert [element.count("FileIndex=") for element in elements] == [RANGES_MAX, RANGES_MAX, 5]


def test_a_file_that_no_span_holds_is_an_error_and_not_a_smaller_restore():
    spans = {1: [span(1, 1, 5, 0), span(1, 7, 9, 100)]}
    for wanted in ([6], [5, 6, 7], [10]):
        with pytest.raises(BootstrapImpossible):
            "".join(bootstrap({1: Ranges.of(wanted)}, {1: job(1)}, spans))
    with pytest.raises(BootstrapImpossible):
        "".join(bootstrap({1: Ranges.of([1])}, {}, spans))


@given(
    st.sets(st.integers(1, 60)),
    st.lists(st.integers(2, 59), unique=True, max_size=5).map(sorted),
)
def test_every_wanted_file_is_listed_in_every_span_that_holds_it(wanted: set[int], cuts: list[int]):
    edges = [1, *cuts, 60]
    spans = [span(1, low, high, low * 1000) for low, high in pairwise(edges)]
    found = {
        int(re.search(r"VolAddr=(\d+)", element).group(1)): listed(element)
        for element in bootstrap({1: Ranges.of(wanted)}, {1: job(1)}, {1: spans})
    }
    for each in spans:
        inside = sorted(wanted & set(range(each.first_index, each.last_index + 1)))
        assert found.get(each.start_address, []) == inside


def listed(element: str) -> list[int]:
    """Return the FileIndexes of an element in the order in which the SD will search them."""
    indexes: list[int] = []
    for line in re.findall(r"FileIndex=(\S+)", element):
        first, _, last = line.partition("-")
        indexes += range(int(first), int(last or first) + 1)
    return indexes
