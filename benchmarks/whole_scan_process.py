"""Scan a tree by a run through Ray, without jobs, and print what it took as JSON.

Covers: Ray, coordinator, ledger, walkers and durable segments as `forebay backup` starts them;
what the ledger names is counted.
Does not cover: Bacula, streams.
"""

import argparse
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from cluster.ray_token import prepare_private_ray

prepare_private_ray()

from actors.calls import answer  # noqa: E402
from bacula_bridge.source import SegmentPage  # noqa: E402
from benchmarks.process_tree import peaks, processes, spent  # noqa: E402
from benchmarks.repeated import RepeatedFilesystem  # noqa: E402
from cluster.embedded import EmbeddedCluster  # noqa: E402
from cluster.settings import Settings  # noqa: E402
from filesystems.detect import open_filesystem  # noqa: E402
from filesystems.interface import Filesystem  # noqa: E402
from shards.lease import Pacing  # noqa: E402
from shards.ledger import Ledger, Run  # noqa: E402
from tests.support.targets import top_level  # noqa: E402

DATASET = "scanned"
SHARDS = 4
NEWS_WAIT_S = 5.0
BEYOND_ALL = 1 << 60  # no segment has such a number: only the end of the scan is news


def main() -> None:
    """Scan DIR into HOME, which is made."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("home", type=Path)
    parser.add_argument("threads", type=int, help="of each walker")
    parser.add_argument("--targets", type=int, default=1, help="walkers; tK in DIR is target K's")
    parser.add_argument("--times", type=int, default=1, help="list DIR so many times")
    arguments = parser.parse_args()
    settings = Settings(arguments.home)
    settings.state.make()
    adapter: Callable[[bytes], Filesystem] = open_filesystem
    if arguments.targets > 1:
        adapter = top_level
    elif arguments.times > 1:
        adapter = functools.partial(RepeatedFilesystem, times=arguments.times)
    started = time.perf_counter()
    with EmbeddedCluster(settings, arguments.targets, adapter) as cluster:
        for walker in cluster.walkers:  # its process may still be starting
            answer(walker.pid.remote(), "the walker")
        root = os.fsencode(arguments.root)
        defined = cluster.coordinator.define_dataset.remote(
            DATASET, "posix", root, SHARDS, Pacing(arguments.threads)
        )
        answer(defined, "the coordinator")
        figures: dict[str, object] = {"ray_s": time.perf_counter() - started}
        figures |= _scan(cluster)
    print(json.dumps(figures | _named(settings)))


def _scan(cluster: EmbeddedCluster) -> dict[str, object]:
    """Scan, and return what it took."""
    before = processes()
    started = time.perf_counter()
    run: Run = answer(cluster.coordinator.open_run.remote(DATASET, "full"), "the coordinator")
    first = _news(cluster, run, 0)
    first_s = time.perf_counter() - started
    while not first.scan_ended and not _news(cluster, run, BEYOND_ALL).scan_ended:
        cluster.check_walkers()
    wall_s = time.perf_counter() - started
    after = processes()
    return {
        "wall_s": wall_s,
        "first_s": first_s,
        "cpu_s": spent(before, after),
        "peak_bytes": peaks(after),
    }


def _news(cluster: EmbeddedCluster, run: Run, after: int) -> SegmentPage:
    """Wait a while for a segment after that one, or for the end of the scan."""
    reference = cluster.coordinator.segments.remote(run.number, after, NEWS_WAIT_S)
    page: SegmentPage = answer(reference, "the coordinator", NEWS_WAIT_S)
    assert page.refusal is None, page.refusal
    return page


def _named(settings: Settings) -> dict[str, object]:
    """Return what the ledger names."""
    ledger = Ledger(settings.state.ledger, read_only=True)
    try:
        row = ledger.query(
            "SELECT SUM(rows) AS inodes, SUM(size_bytes) AS segment_bytes,"
            " COUNT(*) AS segments, COUNT(DISTINCT lease) AS leases FROM segments"
        )[0]
        return dict(row)
    finally:
        ledger.close()


if __name__ == "__main__":
    main()
