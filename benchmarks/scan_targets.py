"""Do walkers on several metadata targets add up?

Covers: a run through Ray on the latency filesystem, with one walker for everything and with a
walker for each of four targets; the walkers hand directories over to one another as they must on
any filesystem with several targets.
Does not cover: real metadata servers; a stand-in adapter says which target has which directory
(tests/support/targets.py).
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.latency_mount import LatencyMount, Shape
from benchmarks.runner import Column, Contender, Report, measure, run_process
from benchmarks.whole_scan import check_count

QUESTION = "walkers on four simulated metadata targets beside one walker for all of them"
TARGETS = 4
THREADS = 8
DELAY_US = 1_000
TIMEOUT_S = 1.0
FILES, FILES_QUICK = 50, 20  # in each directory
ROUNDS, ROUNDS_QUICK = 3, 2

COLUMNS = (
    Column("rate", "inodes/s", ratio=True),
    Column("wall_s", "wall s", 2),
    Column("cpu_us", "run's CPU us/inode", 1),
    Column("server_us", "server's", 1),
    Column("operations", "operations/inode", 2),
    Column("in_flight", "in flight at most"),
    Column("busiest", "busiest target %"),
    Column("leases", "leases"),
)
NOTES = (
    f"Every walker has {THREADS} threads; every operation takes {DELAY_US} us, and each target"
    f" serves {THREADS} at once. A new mount for each run; attributes live for {TIMEOUT_S:g} s.",
    "'busiest target %': its share of all operations below the root. Ray's start is left out.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Scan the same namespace with one walker and with four in turn, and report."""
    shape = Shape(fanout=10, depth=3, files=FILES_QUICK if quick else FILES, targets=TARGETS)
    contenders = [
        Contender("1 walker", "one walker for the whole tree", _scan(folder, shape, 1)),
        Contender("4 walkers", "a walker for each target", _scan(folder, shape, TARGETS)),
    ]
    return Report(
        benchmark="scan-targets",
        question=QUESTION,
        setting=f"{shape.inodes:,} inodes below {TARGETS} directories of as many targets",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=measure(
            contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), warm_up=not quick
        ),
        notes=NOTES,
    )


def _scan(folder: Path, shape: Shape, walkers: int) -> Callable[[], dict[str, float]]:
    home = folder / "home"
    process = [sys.executable, "-m", "benchmarks.whole_scan_process"]
    options = [str(home), str(THREADS), "--targets", str(walkers)]

    def run_once() -> dict[str, float]:
        mount = LatencyMount(shape, delay_us=DELAY_US, timeout_s=TIMEOUT_S, concurrency=THREADS)
        with mount:
            before = mount.operations().cpu_s
            done = run_process([*process, str(mount.path), *options], capture=True)
            operations = mount.operations()
        shutil.rmtree(home)
        found = json.loads(done.output)
        check_count(f"the run with {walkers} walkers", found["inodes"], shape.inodes)
        below = operations.by_target[:TARGETS]
        return {
            "rate": shape.inodes / found["wall_s"],
            "wall_s": found["wall_s"],
            "cpu_us": sum(found["cpu_s"].values()) * 1e6 / shape.inodes,
            "server_us": (operations.cpu_s - before) * 1e6 / shape.inodes,
            "operations": operations.delayed / shape.inodes,
            "in_flight": operations.in_flight_high,
            "busiest": 100 * max(below) / sum(below),
            "leases": found["leases"],
        }

    return run_once
