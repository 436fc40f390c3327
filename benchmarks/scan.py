"""How fast is a scan, beside the tools that walk a tree on one machine?

Covers: the walker kernel with 1, 2 and 4 threads, GNU find, bfs, and Python's os.scandir with stat,
on a uniform tree of empty files, with a warm cache.
Does not cover: cold caches and filesystems with latency, where threads matter far more.
"""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.runner import (
    BenchmarkFailed,
    Column,
    Contender,
    Measured,
    Report,
    measure,
    run_process,
    say,
)
from tests.support.bulk import make_uniform

QUESTION = "inodes per second of the scan kernel beside find, bfs and os.scandir"
FILES, FILES_QUICK = 988_000, 98_800  # with their directories about 1,000,000 and 100,000 inodes
FILES_PER_DIRECTORY = 90
ROUNDS, ROUNDS_QUICK = 5, 3
THREADS = (1, 2, 4)
PRINT_FORMAT = r"%i %s %T@ %p\n"
WALKERS = {"find": "GNU find", "bfs": "bfs"}

INNER = ("rate", "wall_s", "cpu_us")
COLUMNS = (
    Column("rate", "inodes/s"),
    Column("wall_s", "wall s", 2, ratio=True),
    Column("cpu_us", "CPU us/inode", 2, ratio=True),
    Column("rss_mib", "peak MiB"),
    Column("inner_rate", "scan alone: inodes/s"),
    Column("inner_wall_s", "wall s", 2, ratio=True),
    Column("inner_cpu_us", "CPU us/inode", 2, ratio=True),
)
NOTES = (
    "Whole processes, start to end: Python and pyarrow take their start-up time of every scan.",
    "'scan alone' is measured inside the process, from the first call to the last row; for find and"
    " bfs, which start in no time, it is the whole process.",
    "find and bfs print a line per file to /dev/null; the kernel fills 20 columns per inode.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Make the tree, run all contenders in turn, and report."""
    files = FILES_QUICK if quick else FILES
    root = folder / "tree"
    say(f"making {files:,} files below {root}")
    inodes = make_uniform(root, files, FILES_PER_DIRECTORY, 0)
    contenders, skipped = _contenders(root, inodes)
    samples = measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS))
    return Report(
        benchmark="scan",
        question=QUESTION,
        setting=f"{inodes:,} inodes, {FILES_PER_DIRECTORY} empty files a directory, warm cache",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        skipped=skipped,
        notes=NOTES,
    )


def _contenders(root: Path, inodes: int) -> tuple[list[Contender], dict[str, str]]:
    """Return what can run here, and the peers that are not installed."""
    contenders: list[Contender] = []
    skipped: dict[str, str] = {}
    for program, name in WALKERS.items():
        path = shutil.which(program)
        if path is None:
            skipped[name] = f"no program `{program}` on this machine"
            continue
        _check_count(name, run_process([path, root, "-printf", "."], capture=True), inodes)
        argv = [path, str(root), "-printf", PRINT_FORMAT]
        what = f"{program} DIR -printf '{PRINT_FORMAT}' > /dev/null"
        contenders.append(Contender(name, what, _external(argv, inodes)))
    scandir = [sys.executable, "-I", "-S", str(Path(__file__).with_name("scandir_process.py"))]
    what = "os.scandir and DirEntry.stat of every entry, one thread"
    contenders.append(Contender("os.scandir", what, _internal([*scandir, str(root)], inodes)))
    for threads in THREADS:
        argv = [sys.executable, "-m", "benchmarks.scan_process", str(root), str(threads)]
        what = f"filesystems.posix, all columns as Arrow batches, threads={threads}"
        name = f"forebay, {threads} thread{'s' if threads > 1 else ''}"
        contenders.append(Contender(name, what, _internal(argv, inodes)))
    return contenders, skipped


def _check_count(name: str, measured: Measured, inodes: int) -> None:
    if len(measured.output) != inodes:
        raise BenchmarkFailed(f"{name} saw {len(measured.output):,} of {inodes:,} inodes")


def _figures(measured: Measured, inodes: int) -> dict[str, float]:
    return {
        "rate": inodes / measured.wall_s,
        "wall_s": measured.wall_s,
        "cpu_us": measured.cpu_s * 1e6 / inodes,
        "rss_mib": measured.peak_rss_bytes / 2**20,
    }


def _external(argv: list[str], inodes: int) -> Callable[[], dict[str, float]]:
    def run_once() -> dict[str, float]:
        figures = _figures(run_process(argv), inodes)
        return {**figures, **{f"inner_{key}": figures[key] for key in INNER}}

    return run_once


def _internal(argv: list[str], inodes: int) -> Callable[[], dict[str, float]]:
    """Measure a process of ours, which also prints what the scan alone took."""

    def run_once() -> dict[str, float]:
        measured = run_process(argv, capture=True)
        inner = json.loads(measured.output)
        if inner["inodes"] != inodes:
            raise BenchmarkFailed(f"{argv[-1]}: saw {inner['inodes']:,} of {inodes:,} inodes")
        return {
            **_figures(measured, inodes),
            "inner_rate": inodes / inner["wall_s"],
            "inner_wall_s": inner["wall_s"],
            "inner_cpu_us": inner["cpu_s"] * 1e6 / inodes,
        }

    return run_once
