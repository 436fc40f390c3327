"""How much of a slow filesystem's latency does a shard stream hide?

Covers: `forebay backup` with 1 and 4 shards and the stock File Daemon on the latency filesystem,
many small files.
Does not cover: the scan alone (latency), a warm local disk (backup), large files (large).
"""

from collections.abc import Callable
from pathlib import Path

from benchmarks.latency_mount import LatencyMount, Shape, why_not
from benchmarks.private_bacula import PrivateBacula
from benchmarks.runner import BenchmarkFailed, Column, Contender, Report, measure

QUESTION = (
    "files per second of a job on a filesystem that answers after 0.5 ms, beside the stock FD"
)
DELAY_US = 500
FILES_PER_DIRECTORY = 100
FILE_BYTES = 4096
DIRECTORIES = 200  # 20,000 files
DIRECTORIES_STOCK, DIRECTORIES_STOCK_QUICK = 100, 10  # it takes 8 ms for a file
ROUNDS, ROUNDS_QUICK = 3, 1
SHARDS = (1, 4)

COLUMNS = (
    Column("files_per_s", "files/s", 0, ratio=True),
    Column("jobs_s", "jobs s", 2),
    Column("client_us", "FD CPU us/file", 1, ratio=True),
    Column("operations", "operations/file", 1),
    Column("in_flight", "most at once"),
)
NOTES = (
    f"Each LOOKUP, GETATTR, OPEN, LISTXATTR, READ is answered {DELAY_US} us after it came; nothing"
    " is cached (timeouts 0, direct_io), so that each component of a path is looked up again.",
    "'operations/file' has those of the scan. TLS between the daemons is on.",
    "The stock FD saves a smaller tree of the same form, since it takes so long: rates compare.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Run all contenders in turn on fresh mounts, and report."""
    if (why := why_not()) is not None:
        raise BenchmarkFailed(why)
    small = _shape(DIRECTORIES_STOCK_QUICK if quick else DIRECTORIES_STOCK)
    large = _shape(DIRECTORIES)
    with PrivateBacula(folder / "home") as bacula:
        contenders = [
            Contender("stock FD", "FileSet with File = DIR, one job", _stock(bacula, small))
        ]
        contenders += [_forebay(bacula, large, shards) for shards in SHARDS]
        samples = measure(
            contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), warm_up=not quick
        )
    return Report(
        benchmark="stream",
        question=QUESTION,
        setting=f"{large.inodes:,} inodes (stock: {small.inodes:,}), files of {FILE_BYTES} bytes,"
        f" {FILES_PER_DIRECTORY} a directory, on the latency filesystem",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        notes=NOTES,
    )


def _shape(directories: int) -> Shape:
    return Shape(fanout=directories, depth=1, files=FILES_PER_DIRECTORY, size_bytes=FILE_BYTES)


def _stock(bacula: PrivateBacula, shape: Shape) -> Callable[[], dict[str, float]]:
    console = bacula.status()["bconsole"]

    def run_once() -> dict[str, float]:
        with LatencyMount(shape, delay_us=DELAY_US) as mount:
            job = bacula.add_plain_job("bench", mount.path)
            figures = bacula.figures(lambda: bacula.run_plain_job(job, console), shape.inodes)
            return {**figures, **_asked(mount)}

    return run_once


def _forebay(bacula: PrivateBacula, shape: Shape, shards: int) -> Contender:
    def run_once() -> dict[str, float]:
        with LatencyMount(shape, delay_us=DELAY_US) as mount:
            # A dataset for each mount, which is another directory each time.
            name = f"{mount.path.name}-{shards}"
            figures = bacula.figures(
                lambda: bacula.backup(mount.path, name, shards, "full"), shape.inodes
            )
            return {**figures, **_asked(mount)}

    what = f"forebay backup DIR --shards {shards} --level full --json"
    return Contender(f"forebay, {shards} job{'s' if shards > 1 else ''}", what, run_once)


def _asked(mount: LatencyMount) -> dict[str, float]:
    asked = mount.operations()
    return {
        "operations": asked.delayed / mount.shape.inodes,
        "in_flight": asked.in_flight_high,
    }
