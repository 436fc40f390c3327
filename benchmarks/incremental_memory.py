"""Does the memory of the comparison grow with the tree?

Covers: the peak of a process that compares a made-up tree with the views of three shards.
Does not cover: other processes of a run; making receipts, layers and segments.
"""

import shutil
import sys
from pathlib import Path

from benchmarks.runner import Column, Contender, Report, measure, run_process

QUESTION = "peak memory of an incremental's comparison, by the number of names"
ROWS, ROWS_QUICK = (1_000_000, 4_000_000), (250_000, 1_000_000)
ROUNDS, ROUNDS_QUICK = 2, 1

COLUMNS = (
    Column("rss_mib", "peak MiB", 1, ratio=True),
    Column("wall_s", "wall s", 1, ratio=True),
)
NOTES = (
    "One name of 100 has changed, one of 200 is new and one is gone, two of 100 are hard links;"
    " the base is a Full in three shards.",
    "The peak is VmHWM, of which Python and pyarrow take about 110 MiB; 'wall s' has making the"
    " tree, the receipts and the layers in it.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Compare trees of both sizes in turn, and report."""
    sizes = ROWS_QUICK if quick else ROWS
    contenders = [_contender(folder, rows) for rows in sizes]
    return Report(
        benchmark="incremental-memory",
        question=QUESTION,
        setting="made-up rows, three shards",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS)),
        notes=NOTES,
    )


def _contender(folder: Path, rows: int) -> Contender:
    place = folder / str(rows)
    argv = [sys.executable, "-m", "tests.support.plan_memory", str(rows), str(place)]

    def run_once() -> dict[str, float]:
        measured = run_process(argv, capture=True)
        shutil.rmtree(place)
        return {"rss_mib": int(measured.output) / 1024, "wall_s": measured.wall_s}

    return Contender(f"{rows:,} names", f"tests.support.plan_memory {rows} DIR", run_once)
