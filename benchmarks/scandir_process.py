"""Walk a tree with os.scandir and stat, and print what it took as JSON.

Covers: the plain Python peer of the scan benchmark.
Does not cover: anything of the product; it runs without site packages.
"""

import json
import os
import sys
import time


def walk(root: bytes) -> int:
    """Count the inodes below and with `root`; every one is looked at."""
    inodes, pending = 1, [root]
    os.stat(root)
    while pending:
        with os.scandir(pending.pop()) as listing:
            for entry in listing:
                entry.stat(follow_symlinks=False)
                inodes += 1
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
    return inodes


def main() -> None:
    """Walk the directory named on the command line."""
    wall, cpu = time.perf_counter(), time.process_time()
    inodes = walk(os.fsencode(sys.argv[1]))
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    print(json.dumps({"inodes": inodes, "wall_s": wall_s, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
