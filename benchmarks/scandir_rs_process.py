"""Count a tree with scandir-rs, and print what it took as JSON.

Covers: its Count with extended attributes, the quickest of its classes that looks at every inode.
Does not cover: its classes that keep what they saw.
"""

import json
import sys
import time

import scandir_rs


def main() -> None:
    """Count the directory named on the command line."""
    wall, cpu = time.perf_counter(), time.process_time()
    found = scandir_rs.Count(sys.argv[1], return_type=scandir_rs.ReturnType.Ext).collect()
    wall_s, cpu_s = time.perf_counter() - wall, time.process_time() - cpu
    inodes = found.dirs + found.files + 1  # it does not count the root
    print(json.dumps({"inodes": inodes, "wall_s": wall_s, "cpu_s": cpu_s}))


if __name__ == "__main__":
    main()
