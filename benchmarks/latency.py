"""What do threads gain where each operation waits for a server?

Covers: the walker kernel with 1 to 128 threads and with as many as it finds useful, GNU find, and
GUFI where it is installed, on the latency filesystem: a tree, one directory, and a tree of which
the client keeps nothing. Each run has a mount of its own.
Does not cover: a real parallel filesystem; a server that slows down under load.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.latency_mount import LatencyMount, Shape, build, drop_cached_inodes, flat
from benchmarks.runner import (
    BenchmarkFailed,
    Column,
    Contender,
    Report,
    measure,
    ratio,
    run_process,
)
from benchmarks.walkers import FIND, Peer, gufi

QUESTION = "what threads gain where each metadata operation takes 0.5 ms"
DELAY_US = 500
ROUNDS, ROUNDS_QUICK = 5, 2
GUFI_THREADS = 32
AUTOMATIC = 0
COLUMNS = (
    Column("rate", "inodes/s", ratio=True),
    Column("threads", "threads"),
    Column("operations", "operations/inode", 2),
    Column("cpu_us", "walker CPU us/inode", 1),
    Column("server_cpu_us", "server CPU us/inode", 1),
    Column("in_flight", "most in flight"),
)
NOTES = (
    "Slow contenders walk smaller trees of the same form: rates are compared.",
    "With automatic threads the time in which their number grows is part of the figure.",
    "Rates of Forebay without the start of Python; find and GUFI start in no time.",
    "Server and walker share this machine's cores. A contender that looked up fewer inodes than"
    " there are has no figure.",
)


@dataclass(frozen=True, slots=True)
class Series:
    """Contenders on one kind of mount, each on a shape that it walks in some seconds."""

    name: str
    setting: str
    timeout_s: float  # for how long the client keeps names and attributes
    small: Shape  # for find and for one thread
    shapes: dict[int, Shape]  # by number of threads
    large: Shape  # for all others
    threads: tuple[int, ...]  # of the kernel
    dont_sync: tuple[int, ...]  # of the kernel that is content with what the client has
    gufi_is_slow: bool
    asked: dict[int, int]  # the ratio to find that a number of threads is to reach


def _tree(fanout: int, depth: int) -> Shape:
    return Shape(fanout=fanout, depth=depth, files=90)


def _all_series(quick: bool) -> tuple[Series, ...]:
    return (
        Series(
            name="tree",
            setting="90 files and 10 directories a directory, attributes kept for 1 s",
            timeout_s=1.0,
            small=_tree(5, 2) if quick else _tree(10, 2),
            shapes={8: _tree(10, 2)} if quick else {},
            large=_tree(10, 3),
            threads=(1, 8, 32, 64, 128, AUTOMATIC),
            dont_sync=(),
            gufi_is_slow=False,
            asked={32: 27, 128: 70},
        ),
        Series(
            name="one directory",
            setting="all files in one directory, attributes kept for 1 s",
            timeout_s=1.0,
            small=flat(2_000 if quick else 10_000),
            shapes={8: flat(10_000 if quick else 50_000), 32: flat(50_000)},
            large=flat(200_000),
            threads=(1, 8, 32, 64, 128, AUTOMATIC),
            dont_sync=(),
            gufi_is_slow=True,
            asked={32: 25, 128: 50},
        ),
        Series(
            name="nothing kept",
            setting="90 files and 10 directories a directory, attributes kept for 0 s",
            timeout_s=0.0,
            small=_tree(3, 2) if quick else _tree(10, 2),
            shapes={},
            large=_tree(10, 3),
            threads=(32,),
            dont_sync=(32, 128),
            gufi_is_slow=False,
            asked={},
        ),
    )


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> list[Report]:
    """Measure each series in turn."""
    del folder  # nothing is stored
    build()
    drop_cached_inodes()
    reports = []
    all_series = _all_series(quick)
    for series in all_series:
        contenders, skipped = _contenders(series)
        counted = rounds or (ROUNDS_QUICK if quick else ROUNDS)
        samples = measure(contenders, counted, warm_up=False)  # no mount knows of another
        report = Report(
            benchmark=f"latency, {series.name}",
            question=QUESTION,
            setting=f"{series.setting}, {DELAY_US} us an operation",
            machine=machine,
            columns=COLUMNS,
            contenders=contenders,
            samples=samples,
            skipped=skipped,
        )
        notes = (*_verdicts(report, series), *(NOTES if series is all_series[-1] else ()))
        reports.append(replace(report, notes=notes))
    return reports


def _verdicts(report: Report, series: Series) -> list[str]:
    return [
        f"asked of {_name(threads)}: {least} times find; found: {found:.1f}"
        for threads, least in series.asked.items()
        if (found := ratio(report, _name(threads), "rate")) is not None
    ]


def _contenders(series: Series) -> tuple[list[Contender], dict[str, str]]:
    contenders: list[Contender] = []
    skipped: dict[str, str] = {}
    for peer, shape in (
        (FIND, series.small),
        (gufi(GUFI_THREADS), series.small if series.gufi_is_slow else series.large),
    ):
        if peer.program is None:
            skipped[peer.name] = peer.missing
            continue
        what = f"{peer.what} ({shape.inodes:,} inodes)"
        contenders.append(Contender(peer.name, what, _peer(peer, series, shape)))
    kernels = [(threads, False) for threads in series.threads]
    kernels += [(threads, True) for threads in series.dont_sync]
    for threads, dont_sync in kernels:
        shape = {1: series.small, **series.shapes}.get(threads, series.large)
        what = f"filesystems.posix, threads={threads}, dont_sync={dont_sync}"
        contenders.append(
            Contender(
                _name(threads, dont_sync),
                f"{what} ({shape.inodes:,} inodes)",
                _kernel(series, shape, threads, dont_sync),
            )
        )
    return contenders, skipped


def _name(threads: int, dont_sync: bool = False) -> str:
    number = "automatic" if threads == AUTOMATIC else f"{threads} thread{'s' * (threads > 1)}"
    return f"forebay, {number}{', dont_sync' if dont_sync else ''}"


def _figures(mount: LatencyMount, wall_s: float, cpu_s: float) -> dict[str, float]:
    inodes, operations = mount.shape.inodes, mount.operations()
    if operations.by_kind["lookup"] < inodes - 1:  # the root has no name
        raise BenchmarkFailed(f"{operations.by_kind['lookup']:,} lookups for {inodes:,} inodes")
    return {
        "rate": inodes / wall_s,
        "operations": operations.delayed / inodes,
        "cpu_us": cpu_s * 1e6 / inodes,
        "server_cpu_us": operations.cpu_s * 1e6 / inodes,
        "in_flight": operations.in_flight_high,
    }


def _peer(peer: Peer, series: Series, shape: Shape) -> Callable[[], dict[str, float]]:
    def run_once() -> dict[str, float]:
        with LatencyMount(shape, delay_us=DELAY_US, timeout_s=series.timeout_s) as mount:
            measured = peer.run(mount.path)
            return _figures(mount, measured.wall_s, measured.cpu_s)

    return run_once


def _kernel(
    series: Series, shape: Shape, threads: int, dont_sync: bool
) -> Callable[[], dict[str, float]]:
    options = ["--dont-sync"] if dont_sync else []

    def run_once() -> dict[str, float]:
        with LatencyMount(shape, delay_us=DELAY_US, timeout_s=series.timeout_s) as mount:
            argv = [sys.executable, "-m", "benchmarks.scan_process", *options]
            measured = run_process([*argv, str(mount.path), str(threads)], capture=True)
            inner = json.loads(measured.output)
            if inner["inodes"] != shape.inodes:
                raise BenchmarkFailed(f"saw {inner['inodes']:,} of {shape.inodes:,} inodes")
            figures = _figures(mount, inner["wall_s"], inner["cpu_s"])
            return {**figures, "threads": inner["threads"]}

    return run_once
