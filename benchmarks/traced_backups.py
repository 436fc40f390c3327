"""A Full and some incrementals of a watched tree, all below this process, for a trace of it.

Covers: `python -m benchmarks.traced_backups FOLDER FILES COUNT...`: for each COUNT so many files
are overwritten and saved, between two marks in the trace.
Does not cover: tracing, counting (system_calls).
"""

import argparse
import os
from contextlib import suppress
from pathlib import Path

from benchmarks.private_bacula import PrivateBacula
from benchmarks.runner import BenchmarkFailed
from benchmarks.watched_tree import overwrite, watching
from tests.support.bulk import make_uniform

DATASET, SHARDS = "traced", 4
FILES_PER_DIRECTORY, FILE_BYTES = 100, 4096
# A name that nobody else asks for: the call is seen in the trace.
MARK = "/forebay-benchmark-mark"


def mark() -> None:
    """Leave a mark in the trace."""
    with suppress(FileNotFoundError):
        os.stat(MARK)


def main() -> None:
    """Run the backups; each must have saved exactly what was changed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("files", type=int)
    parser.add_argument("counts", type=int, nargs="+")
    arguments = parser.parse_args()
    root = arguments.folder / "tree"
    make_uniform(root, arguments.files, FILES_PER_DIRECTORY, FILE_BYTES)
    with (
        PrivateBacula(arguments.folder / "home") as bacula,
        watching(root, DATASET, bacula.environment),
    ):
        bacula.backup(root, DATASET, SHARDS)
        for count in arguments.counts:
            jobid = bacula.last_jobid()
            mark()
            overwrite(root, count)
            bacula.backup(root, DATASET, SHARDS)
            mark()
            saved = bacula.jobs_after(jobid).files
            if saved != count:
                raise BenchmarkFailed(f"{saved:,} names were saved, {count:,} were changed")


if __name__ == "__main__":
    main()
