"""One lease: how much it takes on, and how much waits for the disk."""

import os
import threading
import time
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from filesystems import lease_walker
from filesystems.interface import Filesystem, MetadataTarget, Walk, WalkBatch, WalkStats
from filesystems.lease_walker import (
    BUDGET_GROWTH_MAX,
    BUDGET_ROWS_MAX,
    BUDGET_ROWS_MIN,
    LEASE_TARGET_S,
    PACED_S,
    UNWRITTEN_BATCHES_MAX,
    LeaseWalker,
)
from filesystems.posix import PosixFilesystem
from shards.lease import Pacing, PendingDirectory
from shards.ledger import Lease
from shards.segment import SegmentInfo

DEADLINE_S = 60.0
LEASE = Lease(1, 1, 1, b"/", 1, 0, (PendingDirectory(b""),), True)


class MadeUpWalk(Walk):
    """Hands out batches of so many rows."""

    stats = WalkStats()
    frontier = ()

    def __init__(self, rows):
        self.left = list(rows)

    def __next__(self):
        if not self.left:
            raise StopIteration
        rows = self.left.pop()
        flags = np.zeros(rows, dtype=np.uint32)
        return WalkBatch(pa.RecordBatch.from_pydict({"flags": flags}), ((rows, 0, 0),))

    def cancel(self):
        raise AssertionError("nobody cancels")

    def close(self):
        """Leave what is left for the test to look at."""


class MadeUpFilesystem(Filesystem):
    """Walks as its test says, and keeps the options."""

    name = "made-up"
    access = "made up"

    def __init__(self, folder, walk):
        self._root, self._walk = os.fsencode(folder), walk
        self.options = []

    @property
    def root(self):
        return self._root

    def targets(self):
        return [MetadataTarget(0, "only")]

    def target_of(self, directory):
        return 0

    def walk(self, directories, options, include_root=False):
        self.options.append(options)
        return self._walk()


def info_of(folder, name, batch, counts, **_):
    return SegmentInfo(name, 1, 1, 1, batch.num_rows, counts)


@pytest.fixture
def budgets(tmp_path, monkeypatch):
    """Return a function: the budgets of leases with so many rows in so many seconds."""
    now = 0.0
    monkeypatch.setattr(lease_walker.time, "monotonic", lambda: now)
    monkeypatch.setattr(lease_walker, "write_segment", info_of)

    def of(*leases):
        def walk():
            nonlocal now
            rows, seconds = leases[len(filesystem.options) - 1]
            now += seconds
            return MadeUpWalk([rows])

        filesystem = MadeUpFilesystem(tmp_path, walk)
        walker = LeaseWalker(filesystem)
        for rows, _ in leases:
            assert walker.walk(LEASE, tmp_path).result().segments[0].rows == rows
        walker.close()
        return [options.budget_rows for options in filesystem.options]

    return of


def test_budgets_grow_from_a_small_one_to_what_takes_two_seconds(budgets):
    second, third = BUDGET_ROWS_MIN * BUDGET_GROWTH_MAX, BUDGET_ROWS_MIN * BUDGET_GROWTH_MAX**2
    found = budgets((BUDGET_ROWS_MIN, 0.001), (second, 0.01), (third, 1.0), (2 * third, 2.0))
    assert found == [BUDGET_ROWS_MIN, second, third, 2 * third]


def test_a_budget_never_passes_its_bounds(budgets):
    fast = [(BUDGET_ROWS_MAX, 0.01)] * 8
    assert budgets(*fast)[-1] == BUDGET_ROWS_MAX
    assert budgets((BUDGET_ROWS_MIN, 0.001), (8 * BUDGET_ROWS_MIN, 100.0), (1, 1.0))[-1] == (
        BUDGET_ROWS_MIN
    )


def test_a_lease_with_little_in_it_does_not_make_the_next_one_small(budgets):
    large = BUDGET_ROWS_MIN * BUDGET_GROWTH_MAX
    assert budgets((BUDGET_ROWS_MIN, 0.001), (3, 0.1), (large, 0.1))[1:] == [large, large]


def test_a_lease_that_took_too_long_makes_the_next_one_small_whatever_was_in_it(budgets):
    large = BUDGET_ROWS_MIN * BUDGET_GROWTH_MAX
    slow = (large // 2, 2 * LEASE_TARGET_S)
    assert budgets((BUDGET_ROWS_MIN, 0.001), slow, (1, 0.1))[2] == large // 4


def test_a_walk_begins_with_the_threads_that_helped_in_the_one_before(tmp_path, monkeypatch):
    monkeypatch.setattr(lease_walker, "write_segment", info_of)
    stats = [
        WalkStats(threads_active=2, seconds=PACED_S / 10),  # too short to have found out
        WalkStats(threads_active=48, seconds=PACED_S),
        WalkStats(threads_active=2, seconds=PACED_S / 10),
        WalkStats(),
    ]

    def walk():
        walk = MadeUpWalk([1])
        walk.stats = stats[len(filesystem.options) - 1]
        return walk

    filesystem = MadeUpFilesystem(tmp_path, walk)
    walker = LeaseWalker(filesystem)
    for _ in stats:
        walker.walk(replace(LEASE, pacing=Pacing(0, 5_000)), tmp_path).result()
    walker.close()
    assert [options.threads_start for options in filesystem.options] == [0, 0, 48, 48]
    assert {(o.threads, o.latency_target_us) for o in filesystem.options} == {(0, 5_000)}


def test_a_slow_disk_holds_the_walk_back(tmp_path, monkeypatch):
    gate, waiting = threading.Event(), threading.Event()
    held = 0

    def write(*arguments, **names):
        nonlocal held
        held += 1
        waiting.set()
        assert gate.wait(DEADLINE_S)
        return info_of(*arguments)

    monkeypatch.setattr(lease_walker, "write_segment", write)
    walk = MadeUpWalk([1] * 50)
    walker = LeaseWalker(MadeUpFilesystem(tmp_path, lambda: walk))
    found = []
    thread = threading.Thread(target=lambda: found.append(walker.walk(LEASE, tmp_path)))
    thread.start()
    assert waiting.wait(DEADLINE_S)
    # One more has been taken from the walk and waits for its turn.
    deadline = time.monotonic() + DEADLINE_S
    while 50 - len(walk.left) < UNWRITTEN_BATCHES_MAX + 1 and time.monotonic() < deadline:
        thread.join(0.01)
    thread.join(0.3)
    assert thread.is_alive()
    assert 50 - len(walk.left) == UNWRITTEN_BATCHES_MAX + 1
    gate.set()
    thread.join(DEADLINE_S)
    assert [info.name for info in found[0].result().segments] == [
        f"1-1-{i}.arrow" for i in range(50)
    ]
    assert held == 50
    walker.close()


def test_names_that_cannot_be_looked_at_are_errors_of_the_lease(tmp_path):
    """A run with errors is no base for one that trusts a change source."""
    (tmp_path / "there").touch()
    (tmp_path / "segments").mkdir()
    names = (b"there", b"gone", b"x" * 256)
    walker = LeaseWalker(PosixFilesystem(tmp_path))
    try:
        lease = replace(LEASE, names=names, directories=(), whole=False)
        assert walker.walk(lease, tmp_path / "segments").result().errors == 1
        lease = replace(lease, number=2, names=names[:2])
        assert walker.walk(lease, tmp_path / "segments").result().errors == 0
    finally:
        walker.close()
