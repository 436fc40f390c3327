"""How fast is one large file, in memory and where each MiB takes its time?

Covers: one job of `forebay backup` and the stock File Daemon, one file: on tmpfs with the volumes
beside it, so that no disk is the limit, and on the latency filesystem, where parallel reads of one
file overlap.
Does not cover: several large files at once, striped files.
"""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.idle_cluster import idle_cluster
from benchmarks.latency_mount import LatencyMount, flat, why_not
from benchmarks.private_bacula import PrivateBacula
from benchmarks.runner import Column, Contender, Report, measure, say

QUESTION = "MiB/s of one large file beside the stock FD, in memory and where each MiB takes 20 ms"
MEMORY_MIB, MEMORY_MIB_QUICK = 1024, 512
SLOW_MIB, SLOW_MIB_QUICK = 512, 256
MIB_US = 20_000
ROUNDS, ROUNDS_QUICK = 4, 2
BLOCK_BYTES = 1 << 20
TMPFS = Path("/dev/shm")

COLUMNS = (
    Column("mib_per_s", "MiB/s"),
    Column("speed", "x of the stock FD", 2),
    Column("jobs_s", "jobs s", 2),
    Column("cpu_ms", "FD CPU ms/MiB", 2),
    Column("sd_ms", "SD CPU ms/MiB", 2),
    Column("in_flight", "reads at once"),
)
NOTES = (
    f"'slow' is the latency filesystem: a READ of a MiB takes {MIB_US // 1000} ms, a short one its"
    " share, any number at a time, nothing is cached. The stock FD has one READ in flight.",
    "Forebay reads up to 8 pieces of 1 MiB at once for a job and hands them on in order, hashed.",
    "While the stock job runs an idle Ray is up, as one is while Forebay's runs: what memory a"
    " virtual machine has not used for seconds is its host's, and to write to it takes up to five"
    " times as long. 'SD CPU' shows whether both found the same.",
    "'x of the stock FD' is the rate by the stock FD's in the same round, on the same filesystem.",
)


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Make the local file, run all contenders in turn, and report."""
    memory, slow = (MEMORY_MIB_QUICK, SLOW_MIB_QUICK) if quick else (MEMORY_MIB, SLOW_MIB)
    skipped = {}
    with (
        tempfile.TemporaryDirectory(prefix="forebay-benchmark-", dir=TMPFS) as place,
        PrivateBacula(Path(place, "home")) as bacula,
    ):
        counted = rounds or (ROUNDS_QUICK if quick else ROUNDS)
        root, idle = Path(place, "large"), Path(place, "idle")
        say(f"making a file of {memory:,} MiB in {root}")
        _make(root, memory)
        places = [_Place("memory", memory, lambda: _unchanged(root), idle)]
        if (why := why_not()) is None:
            places.append(_Place("slow", slow, lambda: _slow(slow), idle))
        else:
            skipped["slow"] = why
        contenders = [contender for place in places for contender in place.contenders(bacula)]
        samples = measure(contenders, counted)
    return Report(
        benchmark="large",
        question=QUESTION,
        setting=f"one file of {memory:,} MiB on tmpfs, one of {slow:,} MiB on the latency"
        " filesystem, incompressible; volumes on tmpfs",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        skipped=skipped,
        notes=NOTES,
    )


class _Place:
    """A directory with one file, and who saves it."""

    def __init__(self, name: str, mib: int, enter: Callable, idle: Path) -> None:
        self._name = name
        self._mib = mib
        self._idle = idle
        self._enter = contextmanager(enter)
        self._stock_rate = 0.0

    def contenders(self, bacula: PrivateBacula) -> list[Contender]:
        """Return the stock File Daemon and Forebay."""
        console = bacula.status()["bconsole"]

        def stock() -> dict[str, float]:
            with self._enter() as (path, in_flight):
                job = bacula.add_plain_job(f"large-{self._name}", path)
                with idle_cluster(self._idle):
                    figures = bacula.figures(lambda: bacula.run_plain_job(job, console), 2)
                self._stock_rate = figures["mib_per_s"]
                return self._figures(figures, in_flight)

        def forebay() -> dict[str, float]:
            with self._enter() as (path, in_flight):
                name = f"large-{path.name}"
                figures = bacula.figures(lambda: bacula.backup(path, name, 1, "full"), 2)
                return self._figures(figures, in_flight)

        return [
            Contender(f"stock FD, {self._name}", "FileSet with File = DIR, one job", stock),
            Contender(
                f"forebay, {self._name}", "forebay backup DIR --shards 1 --level full", forebay
            ),
        ]

    def _figures(
        self, figures: dict[str, float], in_flight: Callable[[], int | None]
    ) -> dict[str, float]:
        shown = {
            "mib_per_s": figures["mib_per_s"],
            "speed": figures["mib_per_s"] / self._stock_rate,
            "jobs_s": figures["jobs_s"],
            "cpu_ms": figures["client_us"] * 2 / 1000 / self._mib,
            "sd_ms": figures["sd_us"] * 2 / 1000 / self._mib,
        }
        if (most := in_flight()) is not None:
            shown["in_flight"] = most
        return shown


def _unchanged(root: Path) -> Iterator[tuple[Path, Callable[[], int | None]]]:
    yield root, lambda: None


def _slow(mib: int) -> Iterator[tuple[Path, Callable[[], int | None]]]:
    with LatencyMount(flat(1, mib << 20), delay_us=0, read_us=0, read_mib_us=MIB_US) as mount:
        yield mount.path, lambda: mount.operations().in_flight_high


def _make(root: Path, mib: int) -> None:
    root.mkdir()
    with (root / "large.dat").open("wb") as stream:
        for _ in range(mib):
            stream.write(os.urandom(BLOCK_BYTES))
