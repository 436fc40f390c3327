"""Small runs through the service, one after the other: nothing grows but what is kept on purpose.

`make nightly` runs it, for an hour; FOREBAY_SOAK_S=n goes on for n seconds instead of 40. Its name
keeps it out of `make test`.

Covers: memory, descriptors and threads of coordinator, bridges and walkers, the size of the state.
Does not cover: Bacula's daemons, Ray's own processes.
"""

import contextlib
import json
import os
import statistics
import time
from dataclasses import dataclass

import psutil
import pytest

from tests.system.site_service import MOVERS, SiteService

SOAK_S = float(os.environ.get("FOREBAY_SOAK_S", "40"))
pytestmark = [pytest.mark.ray, pytest.mark.bacula, pytest.mark.timeout(SOAK_S + 600)]

KINDS = ("CoordinatorActor", "BridgeActor", "WalkerActor")
FILES, CHANGED = 60, 5
CHAIN = 10  # runs from one Full to the next: what is asked of the catalog grows with chains
RUNS_MIN = 6
SHOWN = 20
WARM_UP = 1 / 3  # of the samples: allocators and caches fill
# What a line through the samples may gain from its beginning to its end.
RSS_NOISE_BYTES = 48 << 20  # of five processes: the first runs of all take 4 MiB each
RSS_HOUR_BYTES = 8 << 20
DESCRIPTORS_NOISE = 4
THREADS_NOISE = 4
STATE_RUN_BYTES = 384 << 10  # segments, receipts and layers of a small run of six shards: 300 KiB


@dataclass(frozen=True)
class Sample:
    """All our actors at one moment."""

    at_s: float
    processes: int
    rss: int
    descriptors: int
    threads: int
    state: int
    rss_of: dict[str, int]  # by kind of actor


@pytest.fixture
def site():
    one = SiteService()
    try:
        for number in range(FILES):
            (one.root / f"f{number}").write_bytes(b"x" * number)
        yield one
    finally:
        one.close()


def sample(site, started):
    pids = [pid for kind in KINDS for pid in site.actor_pids(kind)]
    descriptors = threads = 0
    rss_of = {
        kind: sum(psutil.Process(pid).memory_info().rss for pid in site.actor_pids(kind))
        for kind in KINDS
    }
    for pid in pids:
        process = psutil.Process(pid)
        descriptors += process.num_fds()
        threads += process.num_threads()
    return Sample(
        time.monotonic() - started,
        len(pids),
        sum(rss_of.values()),
        descriptors,
        threads,
        state_bytes(site),
        rss_of,
    )


def state_bytes(site):
    found = 0
    for folder in {site.settings.state.base, site.settings.state.ledger.parent}:
        for path in folder.rglob("*"):
            with contextlib.suppress(FileNotFoundError):
                found += path.lstat().st_size
    return found


def gain(samples, name):
    """What the line through the samples gains from the first to the last one."""
    times = [each.at_s for each in samples]
    slope, _ = statistics.linear_regression(times, [getattr(each, name) for each in samples])
    return slope * (times[-1] - times[0])


def test_a_gain_is_seen_through_noise():
    samples = [Sample(at, 5, 100 * at + (at % 2) * 30, 9, 9, 0, {}) for at in range(20)]
    assert gain(samples, "rss") == pytest.approx(1900, rel=0.05)
    assert gain(samples, "threads") == 0


def test_nothing_grows_with_the_number_of_runs(site):
    samples = []
    with site.serving():
        started = time.monotonic()
        site.backup("Full")
        while len(samples) < RUNS_MIN or time.monotonic() - started < SOAK_S:
            for number in range(CHANGED):
                path = site.root / f"f{(len(samples) * CHANGED + number) % FILES}"
                path.write_bytes(os.urandom(100))
            level = "Incremental" if len(samples) % CHAIN else "Full"
            assert site.backup(level).run.state.value in ("complete", "warnings")
            samples.append(sample(site, started))
    steady = samples[int(len(samples) * WARM_UP) :]
    hours = (steady[-1].at_s - steady[0].at_s) / 3600
    gains = {name: gain(steady, name) for name in ("rss", "descriptors", "threads", "state")}
    print(json.dumps({"runs": len(samples), "gains": gains}))
    for each in samples[:: max(1, len(samples) // SHOWN)]:
        print(each)
    assert {each.processes for each in samples} == {len(MOVERS) + 2}
    assert gains["rss"] <= RSS_NOISE_BYTES + RSS_HOUR_BYTES * hours, gains
    assert gains["descriptors"] <= DESCRIPTORS_NOISE, gains
    assert gains["threads"] <= THREADS_NOISE, gains
    assert gains["state"] <= STATE_RUN_BYTES * len(steady), gains
