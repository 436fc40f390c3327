"""How fast is a scan of CephFS by libcephfs, beside one through the mount?

Covers: the tests' real cluster (two metadata servers, an OSD in memory) with a new client for each
run, or a CephFS that --folder is on, as it is; 1 to 8 threads.
Does not cover: a cluster on machines of its own, Linux's own client.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import (
    BenchmarkFailed,
    Column,
    Contender,
    Report,
    measure,
    run_process,
    say,
)
from filesystems.cephfs.attributes import MOUNT_TYPES
from filesystems.mountinfo import mount_type_of
from tests.support.ceph.cluster import CephCluster, Unavailable, ceph_cluster

QUESTION = "inodes per second of a CephFS, by libcephfs and through the mount"
FILES, FILES_QUICK = 20_000, 5_000
PER_DIRECTORY = 100
THREADS = (1, 2, 4, 8)
WAYS = ("mount", "libcephfs")
ROUNDS, ROUNDS_QUICK = 5, 3
CLIENT = "benchmark"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
COLUMNS = (
    Column("rate", "inodes/s", ratio=True),
    Column("wall_s", "scan alone: wall s", 2),
    Column("cpu_us", "scan's CPU us/inode", 1),
    Column("client_us", "ceph-fuse's", 1),
    Column("servers_us", "metadata servers'", 1),
    Column("process_s", "process: wall s", 2),
    Column("rss_mib", "peak MiB"),
    Column("client_mib", "ceph-fuse's"),
)
NOTES = (
    "'scan alone': from the first call to the last row; for libcephfs it includes mounting and the"
    " proof that it is the same tree. The process's time includes Python's start and unmounting.",
    "Clients, metadata servers and OSD share this machine's cores.",
)
_MAKE = (
    "import sys; from pathlib import Path; from tests.support.bulk import make_uniform;"
    f" print(make_uniform(Path(sys.argv[1]), int(sys.argv[2]), {PER_DIRECTORY}, 0))"
)


@dataclass(frozen=True, slots=True)
class Site:
    """A CephFS that is mounted somewhere."""

    folder: Path
    prefix: tuple[str, ...]  # of commands that see it
    environment: Mapping[str, str]
    renew: Callable[[], None]  # give the mount a client that knows nothing
    setting: str


def run(folder: Path, machine: dict[str, str], *, quick: bool, rounds: int | None) -> Report:
    """Scan one tree in both ways with several numbers of threads, in turn, and report."""
    with _site(folder) as site:
        root = site.folder / "tree"
        say("making the tree")
        files = FILES_QUICK if quick else FILES
        argv = [*site.prefix, sys.executable, "-c", _MAKE, str(root), str(files)]
        inodes = int(run_process(argv, capture=True).output)
        contenders = [
            Contender(
                f"{way}, {threads} thread{'s' * (threads > 1)}",
                f"filesystems.cephfs, {way}, threads={threads}",
                _scan(site, root, way, threads, inodes),
            )
            for threads in THREADS
            for way in WAYS
        ]
        samples = measure(contenders, rounds or (ROUNDS_QUICK if quick else ROUNDS), site.renew)
    return Report(
        benchmark="cephfs",
        question=QUESTION,
        setting=f"{inodes:,} inodes, {PER_DIRECTORY} empty files a directory; {site.setting}",
        machine=machine,
        columns=COLUMNS,
        contenders=contenders,
        samples=samples,
        notes=NOTES,
    )


@contextmanager
def _site(folder: Path) -> Iterator[Site]:
    if mount_type_of(bytes(folder)) in MOUNT_TYPES:
        yield Site(folder, (), {}, lambda: None, "the clients as they are")
        return
    try:
        with ceph_cluster() as cluster:
            library = cluster.library_environment()
            prefix = tuple(cluster.library_prefix)
            mount = cluster.mount(CLIENT)
            yield Site(mount, prefix, library, lambda: _renew(cluster), "a new client each time")
    except Unavailable as error:
        raise BenchmarkFailed(f"{error}; or name a CephFS with --folder") from error


def _renew(cluster: CephCluster) -> None:
    cluster.unmount(CLIENT)
    cluster.mount(CLIENT)


def _scan(
    site: Site, root: Path, way: str, threads: int, inodes: int
) -> Callable[[], dict[str, float]]:
    module = [sys.executable, "-m", "benchmarks.scan_process"]
    argv = [*site.prefix, *module, str(root), str(threads), "--cephfs", way]

    def run_once() -> dict[str, float]:
        before = _daemons()
        done = run_process(argv, capture=True, environment=dict(site.environment))
        after = _daemons()
        inner = json.loads(done.output)
        if inner["inodes"] != inodes:
            raise BenchmarkFailed(f"`{argv}` saw {inner['inodes']:,} of {inodes:,} inodes")
        spent = {name: after[name][0] - before[name][0] for name in after}
        return {
            "rate": inodes / inner["wall_s"],
            "wall_s": inner["wall_s"],
            "cpu_us": inner["cpu_s"] * 1e6 / inodes,
            "client_us": spent["ceph-fuse"] * 1e6 / inodes,
            "servers_us": spent["ceph-mds"] * 1e6 / inodes,
            "process_s": done.wall_s,
            "rss_mib": done.peak_rss_bytes / 2**20,
            "client_mib": after["ceph-fuse"][1] / 2**20,
        }

    return run_once


def _daemons() -> dict[str, tuple[float, int]]:
    """Return CPU seconds and the greatest peak memory of this machine's CephFS daemons."""
    found = {"ceph-fuse": (0.0, 0), "ceph-mds": (0.0, 0)}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "comm").read_text().strip()
            if name not in found:
                continue
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
            high = (entry / "status").read_text().partition("VmHWM:")[2].split(maxsplit=1)
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
        cpu_s, peak_bytes = found[name]
        ticks = int(fields[11]) + int(fields[12])
        found[name] = (
            cpu_s + ticks / TICKS_PER_S,
            max(peak_bytes, int(high[0]) * 1024 if high else 0),
        )
    return found
