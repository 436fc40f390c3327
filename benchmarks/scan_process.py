"""Scan a tree with the product's kernel, and print what it took as JSON.

Covers: one scan by `filesystems`, every batch taken and dropped, as `forebay scan` does it.
Does not cover: writing segments, shards beyond one.
"""

import argparse
import json
import os
import time
from pathlib import Path

# numpy comes with pyarrow, and its BLAS with threads that spin for a tenth of a second at first.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from filesystems.cephfs.filesystem import CephfsFilesystem
from filesystems.cephfs.settings import CephfsSettings
from filesystems.interface import WalkOptions
from filesystems.posix import PosixFilesystem
from shards.lease import PendingDirectory


def main() -> None:
    """Scan a directory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("threads", type=int, help="0: automatic")
    parser.add_argument("--dont-sync", action="store_true")
    parser.add_argument("--cephfs", choices=["libcephfs", "mount"], help="the adapter's way")
    arguments = parser.parse_args()
    options = WalkOptions(
        threads=arguments.threads, shards=1, seed=0, dont_sync=arguments.dont_sync
    )
    wall, cpu = time.perf_counter(), time.process_time()
    rows = 0
    filesystem = PosixFilesystem(arguments.root)
    if arguments.cephfs is not None:
        settings = CephfsSettings(by_library=arguments.cephfs == "libcephfs")
        filesystem = CephfsFilesystem(arguments.root, settings)
    assert arguments.cephfs != "libcephfs" or "by libcephfs" in filesystem.access
    with filesystem.walk([PendingDirectory(b"")], options, include_root=True) as walk:
        for found in walk:
            rows += found.batch.num_rows
        stats = walk.stats
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    assert rows == stats.entries, (rows, stats)
    assert not stats.errors, stats
    found_out = {"inodes": rows, "wall_s": wall_s, "cpu_s": cpu_s, "threads": stats.threads_high}
    print(json.dumps(found_out))


if __name__ == "__main__":
    main()
