"""How fast are Lustre changelog records taken in?

Covers: a whole reading of one changelog, as each run makes one, through a stand-in of the client
library into a change log on disk, flushed and cleared; the same without a log; memory and the log's
size as records become more.
Does not cover: a real metadata target, and the network to it.
"""

import json
import random
import shutil
import sys
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import numpy as np

from benchmarks.runner import BenchmarkFailed, Column, Contender, Report, measure, run_process
from tests.support.lustre.encoding import NO_FID, encode, fid
from tests.support.lustre.targets import Target, library, standin_state
from tests.support.lustre.tree import LustreTree

QUESTION = "changelog records of one Lustre metadata target, decoded, merged and made durable"
RECORDS, RECORDS_QUICK = 1_000_000, 100_000
FILES_PER_RECORD = 0.25  # so many files are written to, others again
TIMES = 10
ROUNDS, ROUNDS_QUICK = 5, 2
MIB = 1 << 20

COLUMNS = (
    Column("rate", "records/s", ratio=True),
    Column("wall_s", "wall s", 2),
    Column("cpu_us", "CPU us/record", 2),
    Column("peak_mib", "peak MiB"),
    Column("log_bytes", "log bytes/record", 1),
    Column("places", "places kept"),
)
NOTES = (
    "A quarter CREAT, a quarter CLOSE, and SATTR, UNLNK, RENME, MTIME; all with job and identity.",
    "'read': library to places, no log. 'whole': a position is taken, as each run does: library to"
    " flushed log, then cleared. The stand-in has its records in a file, on the log's disk.",
    "'same files': the million records again and again; 'other files': of other files each time,"
    " more than an incremental may have, so that the log lets go of them.",
    "Peaks are VmHWM, of which Python with these modules takes about 67 MiB.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Take the same records in, with a log and without, and ten times as many."""
    count = RECORDS_QUICK if quick else RECORDS
    records = _Records(count)
    contenders = [
        Contender("read", f"{count:,}: library, decode, merge", _taken(folder, records, "decode")),
        Contender("whole", f"{count:,}: and log, clear", _taken(folder, records, "whole")),
        Contender(
            "whole, same files",
            f"{count * TIMES:,}",
            _taken(folder, records, "whole", TIMES),
        ),
        Contender(
            "whole, other files",
            f"{count * TIMES:,}",
            _taken(folder, records, "whole", TIMES, moves_on=True),
        ),
    ]
    return Report(
        benchmark="changelog",
        question=QUESTION,
        setting=f"{count:,} records of {int(count * FILES_PER_RECORD):,} files, and more",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=measure(
            contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), warm_up=not quick
        ),
        notes=NOTES,
    )


class _Records:
    """Made-up records, to be written with any numbers."""

    def __init__(self, count: int) -> None:
        records = _made_up(count)
        self.count = count
        self._bytes = np.frombuffer(bytearray(b"".join(records)), np.uint8)
        self._starts = np.array([0, *accumulate(map(len, records))][:-1])

    def _fields(self, offset: int) -> np.ndarray:
        """Return where numbers of 8 bytes are."""
        return self._starts[:, None] + offset + np.arange(8)

    def write(self, target: Target, times: int, moves_on: bool) -> None:
        """Append all of them so often."""
        records = self._bytes.copy()
        for _ in range(times):
            numbers = np.arange(self.count, dtype="<u8") + np.uint64(target.newest + 1)
            records[self._fields(8)] = numbers.view(np.uint8).reshape(-1, 8)
            with target.records.open("ab") as stream:
                stream.write(records.data)
            target._newest, target._size = int(numbers[-1]), target._size + len(records)
            if moves_on:  # the next ones have other FIDs
                for offset in (32, 48):
                    found = records[self._fields(offset)].copy().view("<u8")
                    found[found != 0] += np.uint64(0x10)
                    records[self._fields(offset)] = found.view(np.uint8)


def _made_up(count: int) -> Sequence[bytes]:
    choice = random.Random(1)
    files = max(1, int(count * FILES_PER_RECORD))
    extra = {1: bytes(16), 2: bytes(24)}
    found = []
    for index in range(1, count + 1):
        number = choice.randrange(files)
        what, folder = fid(0x200000401, number), fid(0x200000401, files + number // 100)
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


def _taken(
    folder: Path, records: _Records, what: str, times: int = 1, *, moves_on: bool = False
) -> Callable[[], dict[str, float]]:
    base = folder / "changelog"
    argv = [sys.executable, "-m", "benchmarks.changelog_process"]

    def run_once() -> dict[str, float]:
        with standin_state(base / "state") as state:
            mount = base / "mount"
            mount.mkdir()
            tree = LustreTree(mount, state)
            target = tree.targets[0]
            tree.mkdir(bytes(mount / "directory"))
            given = json.dumps(
                {
                    "root": str(mount),
                    "mount": str(mount),
                    "consumers": [[target.name, target.register("backup")]],
                    "folder": str(base / "log"),
                    "library": library(),
                }
            )
            run_process([*argv, "first", given])
            records.write(target, times, moves_on)
            measured = run_process([*argv, what, given], capture=True)
            is_cleared = target.users()["cl1"] >= records.count * times
        shutil.rmtree(base)
        found = json.loads(measured.output)
        if is_cleared != (what == "whole"):
            raise BenchmarkFailed("not all records were read and cleared")
        count = records.count * times
        return {
            "rate": count / found["wall_s"],
            "wall_s": found["wall_s"],
            "cpu_us": found["cpu_s"] * 1e6 / count,
            "peak_mib": measured.peak_rss_bytes / MIB,
            "log_bytes": found["log_bytes"] / count,
            "places": found["places"],
        }

    return run_once
