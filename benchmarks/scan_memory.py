"""Does the memory of a scan through Ray grow with the tree?

Covers: the peak of every process of a run (driver, coordinator, walker, bridge, Ray's own) that
scans one million and ten million inodes.
Does not cover: streams and jobs; the comparison of an incremental (incremental_memory).
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.process_tree import ACTORS, DRIVER, OTHER
from benchmarks.runner import Column, Contender, Report, measure, run_process, say
from benchmarks.whole_scan import check_count
from tests.support.bulk import make_uniform

QUESTION = "peak memory of every process of a scan through Ray, by the number of inodes"
FILES = 990_000  # with their directories 1,000,000 inodes
FILES_PER_DIRECTORY = 100
TIMES = 10  # the tree is listed so often in the larger run
ROUNDS, ROUNDS_QUICK = 2, 1
THREADS = 2
MIB = 1 << 20
ROLES = (*ACTORS.values(), DRIVER, OTHER)

COLUMNS = (
    *(Column(role, f"{role} MiB", ratio=True) for role in ROLES),
    Column("wall_s", "wall s", 1),
    Column("segment_mib", "segments MiB"),
)
NOTES = (
    f"The larger run lists one tree {TIMES} times within one run (benchmarks/repeated.py), so that"
    " walker, coordinator and ledger have ten times the work of a tree that can be made here.",
    "Peaks are VmHWM at the end of the scan, of 'Ray's own' the greatest of its processes; the"
    " bridge has no stream and stands for an idle one.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Scan the tree once and many times in turn, and report."""
    root = folder / "tree"
    say(f"making {FILES:,} files below {root}")
    inodes = make_uniform(root, FILES, FILES_PER_DIRECTORY, 0)
    contenders = [_contender(root, folder / "home", inodes, times) for times in (1, TIMES)]
    return Report(
        benchmark="scan-memory",
        question=QUESTION,
        setting=f"one walker with {THREADS} threads, {FILES_PER_DIRECTORY} files a directory",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), warm_up=False),
        notes=NOTES,
    )


def _contender(root: Path, home: Path, inodes: int, times: int) -> Contender:
    # The root has one row in a run, however often it is listed.
    expected = (inodes - 1) * times + 1
    return Contender(
        f"{expected:,} inodes", f"listed {times} times", _scan(root, home, expected, times)
    )


def _scan(root: Path, home: Path, expected: int, times: int) -> Callable[[], dict[str, float]]:
    process = [sys.executable, "-m", "benchmarks.whole_scan_process"]
    argv = [*process, str(root), str(home), str(THREADS), "--times", str(times)]

    def run_once() -> dict[str, float]:
        found = json.loads(run_process(argv, capture=True).output)
        shutil.rmtree(home)
        check_count("the run", found["inodes"], expected)
        peaks = {role: found["peak_bytes"][role] / MIB for role in ROLES}
        return {
            **peaks,
            "wall_s": found["wall_s"],
            "segment_mib": found["segment_bytes"] / MIB,
        }

    return run_once
