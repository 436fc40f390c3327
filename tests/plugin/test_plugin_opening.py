"""How many threads of the plugin open entries at a time.

Covers: more of them while the job waits for what they open, fewer while all that may be ahead is
open, sleepers that are woken for the second half; that every bound at once stops nothing, with any
number of threads; under both sanitizers.
Does not cover: what they hold ahead (test_plugin_limits.py), how fast it is (benchmarks).
"""

import pytest

from tests.plugin.backup_support import (
    M_ERROR,
    back_up,
    check_saved,
    entry_of,
    leased,
    statuses,
    write,
)
from tests.support.stream_bridge import LINK, SAVED, Limits

AHEAD = 512  # entries that may be open ahead
SETTLE_FILES = 300  # after so many more files the harness looks again
DELAY_US = 3000


def make_files(root, count):
    for number in range(count):
        (root / f"file{number}").write_bytes(b"%d" % number)
    return [entry_of(root, f"file{number}") for number in range(count)]


def openings(out):
    """Return the most openings at a time, for each stretch that the harness looked at."""
    return [int(line) for line in (out / "opening").read_text().split()]


@pytest.mark.parametrize(("threads", "least"), [(1, 1), (2, 2), (3, 2), (16, 2)])
def test_all_threads_open_while_the_job_waits_and_few_while_it_does_not(
    backup_harness, out, root, threads, least
):
    """The first openings hang until all threads are at it; at each look all of them sleep."""
    entries = make_files(root, 2 * SETTLE_FILES + AHEAD + 50)
    limits = Limits(threads=threads)
    settings = {"hold": threads, "delay": DELAY_US, "settle": f"{SETTLE_FILES}:{threads}"}
    (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=limits, **settings)
    assert openings(out)[:2] == [threads, least]
    check_saved(root, entries, dump, stream)


def test_a_job_that_never_waits_has_few_threads_opening(backup_harness, out, root):
    """It waits for its first file; then all that it takes is open already."""
    entries = make_files(root, SETTLE_FILES + AHEAD + 50)
    limits = Limits(threads=32)
    settings = {"delay": DELAY_US, "settle": "0:32"}
    _, (stream,) = back_up(backup_harness, out, root, [entries], limits=limits, **settings)
    first, later, _ = openings(out)
    assert first <= 8
    assert later == 2
    assert statuses(stream) == [SAVED] * len(entries)


def test_a_job_that_waits_again_gets_its_threads_again(backup_harness, out, root):
    """Nothing but the openings is slow: at the end of what was open, it has to wait."""
    count = SETTLE_FILES + AHEAD + 600
    entries = make_files(root, count)
    settings = {"delay": DELAY_US, "settle": "0:32"}
    limits = Limits(threads=32)
    _, (stream,) = back_up(backup_harness, out, root, [entries], limits=limits, **settings)
    _, before, after = openings(out)
    assert before == 2
    assert after > 8
    assert statuses(stream) == [SAVED] * count


@pytest.mark.parametrize("threads", [1, 2, 32])
@pytest.mark.parametrize("prefetch_bytes", [1 << 20, 32 << 20])
def test_every_bound_at_once_stops_nothing(backup_harness, out, root, threads, prefetch_bytes):
    """Room for the head alone, more large files than may be open, names of one inode, a lease."""
    names = []
    for number in range(60):
        names += [f"small{number}", f"large{number}", f"link{number}"]
        write(root / f"small{number}", 300_000)
        write(root / f"large{number}", 1_100_000)
        (root / f"link{number}").hardlink_to(root / f"large{number}")
    names += [f"file{number}" for number in range(700)]
    for name in names[180:]:
        write(root / name, 10)
    entries = [entry_of(root, name) for name in names]
    limits = Limits(threads=threads, prefetch_bytes=prefetch_bytes, large_file_bytes=1 << 20)
    with leased(root / names[500], 0.3) as asked:
        (dump,), (stream,) = back_up(backup_harness, out, root, [entries], limits=limits, delay=200)
    assert len(asked) == 1
    assert dump.said(M_ERROR) == []
    assert statuses(stream) == [SAVED, SAVED, LINK] * 60 + [SAVED] * 700
    check_saved(root, entries, dump, stream)
