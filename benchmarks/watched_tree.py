"""A tree that a change reader watches, and changes in it.

Covers: the reader as a process of this benchmark's own, files overwritten in place.
Does not cover: making the tree (tests.support.bulk), backups of it (private_bacula).
"""

import os
import select
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from benchmarks.private_bacula import FOREBAY
from benchmarks.runner import CHECKOUT, BenchmarkFailed

DIRECTORIES = 20
START_WAIT_S = 60.0
STOP_WAIT_S = 60.0


def why_unwatchable() -> str | None:
    """Say why no change reader can run here; None if one can."""
    return None if os.geteuid() == 0 else "fanotify on a whole filesystem needs root"


@contextmanager
def watching(root: Path, dataset: str, environment: Mapping[str, str]) -> Iterator[None]:
    """Run the change reader of a dataset; it watches once this is entered."""
    process = subprocess.Popen(
        [FOREBAY, "watch", root, "--name", dataset],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
        cwd=CHECKOUT,
    )
    try:
        _await(process, f"watching {root}")
        yield
    finally:
        process.terminate()
        process.communicate(timeout=STOP_WAIT_S)


def _await(process: subprocess.Popen[bytes], line: str) -> None:
    """Wait for a line on a process's stderr."""
    assert process.stderr is not None
    said = b""
    deadline = time.monotonic() + START_WAIT_S
    while line.encode() not in said:
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([process.stderr], [], [], left)
        chunk = os.read(process.stderr.fileno(), 4096) if readable else b""
        if not chunk:
            raise BenchmarkFailed(f"the change reader did not start: {said.decode().strip()}")
        said += chunk


def overwrite(root: Path, files: int) -> None:
    """Overwrite so many files of a uniform tree in place, in DIRECTORIES directories."""
    folders = sorted(root.glob("*/*"))
    for folder in folders[:: len(folders) // DIRECTORIES][:DIRECTORIES]:
        chosen = sorted(folder.iterdir())[: files // DIRECTORIES]
        if len(chosen) != files // DIRECTORIES:
            raise ValueError(f"{folder} has {len(chosen)} files only")
        for path in chosen:
            size_bytes = path.stat().st_size
            with path.open("r+b") as stream:
                stream.write(os.urandom(size_bytes))
