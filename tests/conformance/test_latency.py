"""The walk on a filesystem that answers slowly: how many threads it takes to it.

Covers: automatic threads against the latency filesystem of benchmarks/.
Does not cover: the decision as such (test_kernel_pace.py), rates (benchmarks).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from benchmarks.latency_mount import LatencyMount, Shape, flat, why_not
from filesystems.errors import WalkCancelled
from filesystems.interface import THREADS_AUTOMATIC, Walk, WalkOptions
from filesystems.posix import PosixFilesystem
from shards.lease import PendingDirectory

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

DEADLINE_S = 30.0
DELAY_US, SLOW_DELAY_US, TARGET_US = 4_000, 40_000, 15_000
BACK_OFF_S = 3.0  # that it takes less than one is shown in simulated time (test_kernel_pace.py)
OBSERVED_S = 0.4
MANY = 16  # threads, where 128 would be of use


def reach(what: str, condition: Callable[[], bool], within_s: float = DEADLINE_S) -> float:
    """Wait for the condition; return how long that took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < within_s, f"waited {within_s} s for {what}"
        time.sleep(0.002)
    return time.monotonic() - began


def start(mount: LatencyMount, **changes) -> Walk:
    options = WalkOptions(shards=2, seed=1, threads=THREADS_AUTOMATIC, **changes)
    return PosixFilesystem(mount.path).walk([PendingDirectory(b"")], options, include_root=True)


def drop_until_cancelled(walk: Walk) -> None:
    with pytest.raises(WalkCancelled):
        for _ in walk:
            pass


@pytest.mark.parametrize("shape", [Shape(fanout=10, depth=3, files=20), flat(20_000)])
def test_threads_grow_where_each_call_waits_and_nothing_is_lost(shape):
    with LatencyMount(shape, delay_us=DELAY_US, timeout_s=1.0) as mount, start(mount) as walk:
        began = time.monotonic()
        rows = sum(batch.batch.num_rows for batch in walk)
        seconds = time.monotonic() - began
        in_flight = mount.operations().in_flight_high
    assert rows == shape.inodes
    assert walk.stats.threads_high >= MANY
    assert in_flight >= MANY
    assert walk.stats.latency_s >= DELAY_US / 1e6
    assert seconds < shape.inodes * DELAY_US / 1e6 / MANY


def test_threads_fall_soon_when_the_server_becomes_slower_and_rise_again():
    shape = flat(200_000)
    with (
        LatencyMount(shape, delay_us=DELAY_US, timeout_s=1.0) as mount,
        start(mount, latency_target_us=TARGET_US) as walk,
    ):
        reader = threading.Thread(target=drop_until_cancelled, args=[walk])
        reader.start()
        try:
            reach("threads", lambda: walk.stats.threads_active >= MANY)
            before = walk.stats.threads_active
            mount.set_delay(SLOW_DELAY_US)
            reach("a back-off", lambda: walk.stats.threads_active <= before / 4, BACK_OFF_S)
            reach("one thread", lambda: walk.stats.threads_active == 1)
            assert walk.stats.backoffs >= 3
            # The server sees it, too: calls already under way come to their end, few follow.
            time.sleep(SLOW_DELAY_US / 1e6)
            asked, cpu_s = mount.operations().delayed, time.process_time()
            time.sleep(OBSERVED_S)
            asked, cpu_s = mount.operations().delayed - asked, time.process_time() - cpu_s
            assert asked <= 2 + MANY / 4 * OBSERVED_S * 1e6 / SLOW_DELAY_US
            assert cpu_s < OBSERVED_S / 4
            mount.set_delay(DELAY_US)
            reach("threads again", lambda: walk.stats.threads_active >= before / 2)
        finally:
            walk.cancel()
            reader.join(DEADLINE_S)
        assert not reader.is_alive()
