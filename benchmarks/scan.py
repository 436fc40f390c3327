"""How fast is a scan, beside the tools that walk a tree on one machine, and beside the limit?

Covers: the walker kernel with 1, 2 and 4 threads, a bare loop of the two system calls, and peers
that look at every inode, on four shapes of trees of empty files, with a warm cache.
Does not cover: cold caches; filesystems with latency (latency.py), where threads matter far more.
"""

import importlib.util
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from benchmarks.compiling import compiled
from benchmarks.runner import (
    BenchmarkFailed,
    Column,
    Contender,
    Measured,
    Report,
    measure,
    ratio,
    run_process,
)
from benchmarks.trees import TREES
from benchmarks.walkers import BFS, FD, FIND, Peer, gufi

QUESTION = "inodes per second of the scan kernel beside the limit and other tools, four trees"
QUICK = 10  # the quick trees have so many times fewer files
ROUNDS, ROUNDS_QUICK = 5, 3
THREADS = (1, 2, 4)
CPU_RATIO_MAX = 1.25
HERE = Path(__file__).parent
COLUMNS = (
    Column("rate", "inodes/s"),
    Column("wall_s", "wall s", 2, ratio=True),
    Column("cpu_us", "CPU us/inode", 2, ratio=True),
    Column("rss_mib", "peak MiB"),
    Column("inner_wall_s", "scan alone: wall s", 2, ratio=True),
    Column("inner_cpu_us", "CPU us/inode", 2, ratio=True),
)
NOTES = (
    "Whole processes, start to end: Python and pyarrow take their start-up time of every scan.",
    "'scan alone' is measured inside the process, from the first call to the last row; for programs"
    " that start in no time it is the whole process.",
    "find and bfs print a line per file to /dev/null, fd its path; the kernel fills 20 columns.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> list[Report]:
    """Measure each tree in turn; only one is there at a time."""
    reports = []
    for tree in TREES:
        root = folder / tree.name
        with tree.made(root, tree.files // (QUICK if quick else 1)) as inodes:
            contenders, skipped = _contenders(root, inodes)
            report = Report(
                benchmark=f"scan, {tree.name}",
                question=QUESTION,
                setting=f"{inodes:,} inodes: {tree.what}; empty files, warm cache",
                machine=machine,
                columns=COLUMNS,
                contenders=contenders,
                samples=measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS)),
                skipped=skipped,
            )
        notes = (*_verdicts(report), *(NOTES if tree is TREES[-1] else ()))
        reports.append(replace(report, notes=notes))
    return reports


def _verdicts(report: Report) -> list[str]:
    """Say how the figures stand to what is asked of them."""
    cpu = ratio(report, _name(1), "inner_cpu_us")
    walls = {
        contender.name: found
        for contender in report.contenders[1:]
        if (found := ratio(report, contender.name, "inner_wall_s")) is not None
    }
    ours = {_name(threads) for threads in THREADS}
    quickest = min((name for name in walls if name not in ours), key=walls.__getitem__)
    return [
        f"asked of {_name(1)}: at most {CPU_RATIO_MAX} times the limit's CPU; found: {cpu:.2f}",
        f"asked of {_name(2)}: less wall time than any peer; found: {walls[_name(2)]:.2f} of the"
        f" limit's with one thread, the quickest peer, {quickest}: {walls[quickest]:.2f}",
    ]


def _name(threads: int) -> str:
    return f"forebay, {threads} thread{'s' * (threads > 1)}"


def _contenders(root: Path, inodes: int) -> tuple[list[Contender], dict[str, str]]:
    """Return what can run here, and the peers that are not installed."""
    program = compiled("bare-loop", (HERE / "bare_loop.c",))
    what = "getdents64 and statx of every name from one thread in C, nothing kept: the limit"
    contenders = [Contender("bare loop", what, _internal([str(program), str(root)], inodes))]
    skipped: dict[str, str] = {}
    for peer in (FIND, BFS, FD, gufi(2)):
        if peer.program is None:
            skipped[peer.name] = peer.missing
            continue
        peer.check(root, inodes)
        contenders.append(Contender(peer.name, peer.what, _external(peer, root, inodes)))
    if importlib.util.find_spec("scandir_rs") is None:
        skipped["scandir-rs"] = "no Python package scandir_rs here (pip install scandir-rs)"
    else:
        argv = [sys.executable, str(HERE / "scandir_rs_process.py"), str(root)]
        what = "scandir_rs.Count with extended attributes, which only counts"
        contenders.append(Contender("scandir-rs", what, _internal(argv, inodes)))
    argv = [sys.executable, "-I", "-S", str(HERE / "scandir_process.py"), str(root)]
    what = "os.scandir and DirEntry.stat of every entry, one thread"
    contenders.append(Contender("os.scandir", what, _internal(argv, inodes)))
    for threads in THREADS:
        argv = [sys.executable, "-m", "benchmarks.scan_process", str(root), str(threads)]
        what = f"filesystems.posix, all columns as Arrow batches, threads={threads}"
        contenders.append(Contender(_name(threads), what, _internal(argv, inodes)))
    return contenders, skipped


def _figures(measured: Measured, inodes: int) -> dict[str, float]:
    return {
        "rate": inodes / measured.wall_s,
        "wall_s": measured.wall_s,
        "cpu_us": measured.cpu_s * 1e6 / inodes,
        "rss_mib": measured.peak_rss_bytes / 2**20,
    }


def _external(peer: Peer, root: Path, inodes: int) -> Callable[[], dict[str, float]]:
    def run_once() -> dict[str, float]:
        figures = _figures(peer.run(root), inodes)
        return {**figures, "inner_wall_s": figures["wall_s"], "inner_cpu_us": figures["cpu_us"]}

    return run_once


def _internal(argv: list[str], inodes: int) -> Callable[[], dict[str, float]]:
    """Measure a process that also prints what it saw, and what the scan alone took."""

    def run_once() -> dict[str, float]:
        measured = run_process(argv, capture=True)
        inner = json.loads(measured.output)
        if inner["inodes"] != inodes:
            raise BenchmarkFailed(f"`{argv}` saw {inner['inodes']:,} of {inodes:,} inodes")
        return {
            **_figures(measured, inodes),
            "inner_wall_s": inner["wall_s"],
            "inner_cpu_us": inner["cpu_s"] * 1e6 / inodes,
        }

    return run_once
