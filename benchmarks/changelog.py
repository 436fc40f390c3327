"""How fast are Lustre changelog records taken in?

Covers: decoding records and merging what they make us look at, alone; and a whole reading of one
changelog through a stand-in of the client library into a change log on disk, flushed and cleared.
Does not cover: a real metadata target, and the network to it.
"""

import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.runner import BenchmarkFailed, Column, Contender, Report, measure
from filesystems.lustre.api import Library
from filesystems.lustre.changelog import Changelog, Cursor
from filesystems.lustre.log import ChangeLog, locked
from filesystems.lustre.looks import Batch
from filesystems.lustre.records import decode
from tests.support.lustre.encoding import NO_FID, encode, fid
from tests.support.lustre.targets import Target, library, standin_state

QUESTION = "changelog records of one Lustre metadata target, decoded, merged and made durable"
RECORDS, RECORDS_QUICK = 1_000_000, 100_000
FILES_PER_RECORD = 0.25  # so many files are written to, others again
ROUNDS, ROUNDS_QUICK = 5, 2
TARGET = "scratch-MDT0000"

COLUMNS = (
    Column("rate", "records/s", ratio=True),
    Column("wall_s", "wall s", 2),
    Column("cpu_us", "CPU us/record", 2),
    Column("places", "places kept"),
)
NOTES = (
    "A quarter CREAT, a quarter CLOSE, and SATTR, UNLNK, RENME, MTIME; all with job and identity.",
    "'whole reading': the stand-in has its records in a file; the log is on the folder's disk.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Take the same records in, in memory and through the library, in turn."""
    count = RECORDS_QUICK if quick else RECORDS
    records = _records(count)
    contenders = [
        Contender("in memory", "decode and merge", lambda: _in_memory(records)),
        Contender("whole reading", "library, decode, merge, log", _whole(folder, records)),
    ]
    return Report(
        benchmark="changelog",
        question=QUESTION,
        setting=f"{count:,} records of {int(count * FILES_PER_RECORD):,} files",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=measure(
            contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), warm_up=not quick
        ),
        notes=NOTES,
    )


def _records(count: int) -> list[bytes]:
    choice = random.Random(1)
    files = max(1, int(count * FILES_PER_RECORD))
    extra = {1: bytes(16), 2: bytes(24)}
    found = []
    for index in range(1, count + 1):
        number = choice.randrange(files)
        what, folder = fid(0x200000401, number), fid(0x200000402, number // 100)
        name, kind = b"file-%d.dat" % number, choice.choice((1, 1, 11, 11, 14, 6, 8, 17))
        if kind == 8:
            moved = (what, folder, name + b"~")
            found.append(
                encode(8, index, NO_FID, folder, name, moved=moved, job=b"cp.0", extra=extra)
            )
        else:
            place = (folder, name) if kind in (1, 6) else ()
            found.append(encode(kind, index, what, *place, job=b"cp.0", extra=extra))
    return found


def _figures(count: int, began: tuple[float, float], places: int) -> dict[str, float]:
    wall, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    return {
        "rate": count / wall,
        "wall_s": wall,
        "cpu_us": cpu * 1e6 / count,
        "places": places,
    }


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _in_memory(records: Sequence[bytes]) -> dict[str, float]:
    began = _now()
    batch = Batch()
    batch.add_all(decode(data) for data in records)
    return _figures(len(records), began, len(batch.places) + len(batch.inodes))


def _whole(folder: Path, records: Sequence[bytes]) -> Callable[[], dict[str, float]]:
    runs = iter(range(1_000_000))

    def run_once() -> dict[str, float]:
        base = folder / f"run{next(runs)}"
        with standin_state(base / "state") as state:
            target = Target(state, TARGET)
            consumer = target.register()
            target.append_raw(b"".join(records))
            changelog = Changelog(Library(library()), TARGET, consumer)
            began = _now()
            with locked(base / "log"), ChangeLog(base / "log", "benchmark") as log:
                cursor, taken = Cursor(), 0
                for part in changelog.drain(cursor):
                    batch = Batch()
                    batch.add_all(part.records)
                    cursor = part.cursor
                    log.add(batch, TARGET, cursor)
                    taken += len(part.records)
                log.keep(TARGET, changelog.clear(cursor))
                figures = _figures(len(records), began, log.count(0))
        if taken != len(records):
            raise BenchmarkFailed(f"{taken:,} of {len(records):,} records were read")
        return figures

    return run_once
