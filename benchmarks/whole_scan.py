"""What does a scan through Ray take, beside the walker kernel alone?

Covers: a run as `forebay backup` opens it (coordinator, ledger, a walker, durable segments) without
jobs, on a warm local tree.
Does not cover: several metadata targets (scan_targets), memory (scan_memory), streams.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.process_tree import DRIVER, OTHER
from benchmarks.runner import (
    BenchmarkFailed,
    Column,
    Contender,
    Report,
    measure,
    run_process,
    say,
)
from tests.support.bulk import make_uniform

QUESTION = "a scan through Ray into durable segments beside the walker kernel alone"
FILES = 990_000  # with their directories 1,000,000 inodes
FILES_PER_DIRECTORY = 100
ROUNDS, ROUNDS_QUICK = 5, 3
THREADS = 2

COLUMNS = (
    Column("rate", "inodes/s"),
    Column("wall_s", "wall s", 2, ratio=True),
    Column("cpu_us", "CPU us/inode", 2, ratio=True),
    Column("walker_us", "walker", 2),
    Column("coordinator_us", "coordinator", 2),
    Column("ray_us", "Ray", 2),
    Column("first_ms", "first rows ms"),
    Column("leases", "leases"),
    Column("ray_s", "Ray's start s", 1),
)
NOTES = (
    "'wall s' of the run: from open_run to the end of the scan, all segments durable and named by"
    " the ledger; of the kernel: from the first call to the last row, batches dropped.",
    "'CPU us/inode' of the run is that of all its processes, Ray's own included ('Ray', with the"
    " driver's and the idle bridge's); 'first rows': when a stream could have its first rows.",
    "'Ray's start s' is outside 'wall s': Ray, coordinator, bridge and walker until they answer.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Make the tree, scan it in both ways in turn, and report."""
    root = folder / "tree"
    say(f"making {FILES:,} files below {root}")
    inodes = make_uniform(root, FILES, FILES_PER_DIRECTORY, 0)
    contenders = [
        Contender(
            "kernel alone",
            f"filesystems.posix in one process, {THREADS} threads",
            _kernel(root, inodes),
        ),
        Contender(
            "whole scan",
            f"a run through Ray, one walker with {THREADS} threads, segments flushed to disk",
            _whole(root, folder / "home", inodes),
        ),
    ]
    return Report(
        benchmark="whole-scan",
        question=QUESTION,
        setting=f"{inodes:,} inodes, {FILES_PER_DIRECTORY} empty files a directory, warm cache",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS)),
        notes=NOTES,
    )


def _kernel(root: Path, inodes: int) -> Callable[[], dict[str, float]]:
    argv = [sys.executable, "-m", "benchmarks.scan_process", str(root), str(THREADS)]

    def run_once() -> dict[str, float]:
        found = json.loads(run_process(argv, capture=True).output)
        check_count("the kernel", found["inodes"], inodes)
        return {
            "rate": inodes / found["wall_s"],
            "wall_s": found["wall_s"],
            "cpu_us": found["cpu_s"] * 1e6 / inodes,
        }

    return run_once


def _whole(root: Path, home: Path, inodes: int) -> Callable[[], dict[str, float]]:
    argv = [sys.executable, "-m", "benchmarks.whole_scan_process", root, home, str(THREADS)]

    def run_once() -> dict[str, float]:
        found = json.loads(run_process(argv, capture=True).output)
        shutil.rmtree(home)
        check_count("the run", found["inodes"], inodes)
        cpu_us = {role: seconds * 1e6 / inodes for role, seconds in found["cpu_s"].items()}
        return {
            "rate": inodes / found["wall_s"],
            "wall_s": found["wall_s"],
            "cpu_us": sum(cpu_us.values()),
            "walker_us": cpu_us["walker"],
            "coordinator_us": cpu_us["coordinator"],
            "ray_us": cpu_us[OTHER] + cpu_us[DRIVER] + cpu_us["bridge"],
            "first_ms": found["first_s"] * 1e3,
            "leases": found["leases"],
            "ray_s": found["ray_s"],
        }

    return run_once


def check_count(who: str, found: int, inodes: int) -> None:
    """Refuse a figure of who did not see the whole tree."""
    if found != inodes:
        raise BenchmarkFailed(f"{who} saw {found:,} of {inodes:,} inodes")
