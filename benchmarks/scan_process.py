"""Scan a tree with the product's kernel, and print what it took as JSON.

Covers: one scan by `filesystems`, every batch taken and dropped, as `forebay scan` does it.
Does not cover: writing segments, shards beyond one.
"""

import json
import sys
import time
from pathlib import Path

from filesystems.interface import WalkOptions
from filesystems.posix import PosixFilesystem
from shards.lease import PendingDirectory


def main() -> None:
    """Scan the directory named on the command line with that many threads."""
    root, threads = Path(sys.argv[1]), int(sys.argv[2])
    wall, cpu = time.perf_counter(), time.process_time()
    rows = 0
    options = WalkOptions(threads=threads, shards=1, seed=0)
    filesystem = PosixFilesystem(root)
    with filesystem.walk([PendingDirectory(b"")], options, include_root=True) as walk:
        for found in walk:
            rows += found.batch.num_rows
        stats = walk.stats
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    assert rows == stats.entries, (rows, stats)
    assert not stats.errors, stats
    print(json.dumps({"inodes": rows, "wall_s": wall_s, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
