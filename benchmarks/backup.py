"""How fast is a backup of many small files, beside the stock File Daemon?

Covers: `forebay backup` with 1 and 4 shards, and the stock File Daemon with a plain FileSet
(`File = DIR`, no signature), in the same private Bacula, files in the page cache.
Does not cover: restores, incrementals, large files, several data movers.
"""

import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.private_bacula import Jobs, PrivateBacula, spent, warm
from benchmarks.runner import BenchmarkFailed, Column, Contender, Report, measure, say
from tests.support.bulk import make_uniform

QUESTION = "files per second of `forebay backup` beside the stock File Daemon"
FILES, FILES_QUICK = 200_000, 20_000
FILES_PER_DIRECTORY = 100
FILE_BYTES = 4096
ROUNDS, ROUNDS_QUICK = 3, 2
SHARDS = (1, 4)
DAEMONS = {"file": "fd_us", "storage": "sd_us", "director": "dir_us"}

COLUMNS = (
    Column("files_per_s", "files/s, jobs"),
    Column("jobs_s", "jobs s", 0, ratio=True),
    Column("wall_s", "command s", 1, ratio=True),
    Column("fd_us", "FD CPU us/file", 1, ratio=True),
    Column("sd_us", "SD CPU us/file", 1),
    Column("dir_us", "Director CPU us/file", 1),
)
NOTES = (
    "'jobs s' is from the first start to the last end in the catalog, which keeps whole seconds.",
    "'command s' is the whole command: of forebay with Python, Ray and the scan, of the stock job"
    " with the console's `wait`.",
    "Before each run everything dirty is flushed and every file is read, so that it is in the page"
    " cache for all.",
    "Volumes, catalog and tree are on one filesystem. The forebay jobs hash every file, the stock"
    " job does not.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Make the tree and a private Bacula, run all contenders in turn, and report."""
    files = FILES_QUICK if quick else FILES
    root = folder / "tree"
    say(f"making {files:,} files of {FILE_BYTES} bytes below {root}")
    inodes = make_uniform(root, files, FILES_PER_DIRECTORY, FILE_BYTES)
    with PrivateBacula(folder / "home") as bacula:
        job = bacula.add_plain_job("bench", root)
        console = bacula.status()["bconsole"]
        contenders = [
            Contender(
                "stock FD",
                "FileSet with File = DIR and no signature, one job",
                _measured(bacula, inodes, lambda: bacula.run_plain_job(job, console)),
            )
        ]
        for shards in SHARDS:
            contenders.append(_forebay(bacula, inodes, root, shards))
        samples = measure(
            contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), lambda: warm(root)
        )
    return Report(
        benchmark="backup",
        question=QUESTION,
        setting=f"{files:,} files of {FILE_BYTES} incompressible bytes, {inodes - files:,}"
        " directories, full backups",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        notes=NOTES,
    )


def _forebay(bacula: PrivateBacula, inodes: int, root: Path, shards: int) -> Contender:
    # A dataset for each number of shards: a change of it would make Bacula change the FileSet.
    name = f"bench-{shards}"
    what = f"forebay backup DIR --name {name} --shards {shards} --json"

    def run_once() -> None:
        bacula.backup(root, name, shards)

    plural = "s" if shards > 1 else ""
    return Contender(f"forebay, {shards} job{plural}", what, _measured(bacula, inodes, run_once))


def _measured(
    bacula: PrivateBacula, inodes: int, action: Callable[[], None]
) -> Callable[[], dict[str, float]]:
    """Return a function that runs `action` once and tells its cost."""

    def run_once() -> dict[str, float]:
        jobid, before = bacula.last_jobid(), bacula.cpu_seconds()
        started = time.perf_counter()
        action()
        wall_s = time.perf_counter() - started
        jobs, after = bacula.jobs_after(jobid), bacula.cpu_seconds()
        _check(jobs, inodes)
        figures = {"wall_s": wall_s, "jobs_s": jobs.seconds}
        # A job of less than a second has no time in the catalog.
        if jobs.seconds:
            figures["files_per_s"] = jobs.files / jobs.seconds
        for daemon, key in DAEMONS.items():
            figures[key] = spent(before, after, daemon) * 1e6 / jobs.files
        return figures

    return run_once


def _check(jobs: Jobs, inodes: int) -> None:
    """A backup that saved less than the tree has no speed."""
    if jobs.files != inodes:
        raise BenchmarkFailed(f"{jobs.count} jobs saved {jobs.files:,} of {inodes:,} files")
