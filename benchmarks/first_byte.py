"""How soon does data reach the Storage Daemon while the scan goes on?

Covers: `forebay backup` of a tree of 1,000,000 inodes on the latency filesystem, from a job's start
to the first data on a volume, and how far the scan was then; the backup is interrupted afterwards.
Does not cover: the rest of the backup.
"""

import os
import signal
import subprocess
import tempfile
from pathlib import Path

from benchmarks.latency_mount import LatencyMount, Shape, why_not
from benchmarks.private_bacula import FOREBAY, PrivateBacula
from benchmarks.runner import (
    CHECKOUT,
    STDERR_SHOWN_BYTES,
    BenchmarkFailed,
    Column,
    Contender,
    Report,
    measure,
)

QUESTION = "seconds from a job's start to its first data on a volume, of 1,000,000 inodes"
TREE = Shape(fanout=10, depth=4, files=90, size_bytes=4096)  # 1,011,101 inodes
DELAY_US = 500
ROUNDS, ROUNDS_QUICK = 5, 3
SHARDS = (1, 4)
TIMEOUT_S = 120.0
END_TIMEOUT_S = 60.0

COLUMNS = (
    Column("first_byte_s", "first data s", 2),
    Column("scanned", "listed by then, operations"),
)
NOTES = (
    "From the moment that the catalog says a job runs to the moment that volumes have grown by more"
    " than their labels: a block of the Storage Daemon, 64 KB; both are seen within 20 ms.",
    "'listed by then' is what the filesystem was asked until then: the whole scan takes more than"
    f" {TREE.inodes:,}. The backup is interrupted then.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Start backups and interrupt them, in turn, and report."""
    if (why := why_not()) is not None:
        raise BenchmarkFailed(why)
    with PrivateBacula(folder / "home") as bacula:
        contenders = [_contender(bacula, shards) for shards in SHARDS]
        samples = measure(
            contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), warm_up=not quick
        )
    return Report(
        benchmark="first-byte",
        question=QUESTION,
        setting=f"{TREE.inodes:,} inodes on the latency filesystem, {DELAY_US} us an operation,"
        " files of 4 KiB",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        notes=NOTES,
    )


def _contender(bacula: PrivateBacula, shards: int) -> Contender:
    def run_once() -> dict[str, float]:
        with LatencyMount(TREE, delay_us=DELAY_US, timeout_s=1.0) as mount:
            return _interrupted(bacula, mount, shards)

    what = f"forebay backup DIR --shards {shards} --level full"
    return Contender(f"forebay, {shards} job{'s' if shards > 1 else ''}", what, run_once)


def _interrupted(bacula: PrivateBacula, mount: LatencyMount, shards: int) -> dict[str, float]:
    name = f"{mount.path.name}-{shards}"
    options = ["--name", name, "--shards", str(shards), "--level", "full", "--json", "-q"]
    with bacula.clock() as clock, tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(
            [FOREBAY, "backup", mount.path, *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **bacula.environment},
            cwd=CHECKOUT,
        )
        try:
            first_byte_s = clock.wait_for_first_byte(TIMEOUT_S)
            scanned = mount.operations().delayed
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(END_TIMEOUT_S)
        if first_byte_s is None:
            errors.seek(0)
            said = errors.read(STDERR_SHOWN_BYTES).decode(errors="replace")
            raise BenchmarkFailed(f"no data came within {TIMEOUT_S:.0f} s: {said}")
    return {"first_byte_s": first_byte_s, "scanned": scanned}
