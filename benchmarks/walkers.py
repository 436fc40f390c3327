"""The tools that a walk is compared with, where they are installed.

Covers: how each is called so that it looks at every inode, and how many inodes it saw.
Does not cover: what is measured (scan.py, latency.py).
"""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import BenchmarkFailed, Measured, run_process

PRINT_FORMAT = r"%i %s %T@ %p\n"
COUNT_BUFFER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Peer:
    """A program that walks a tree; `programs` are its names on PATH, `what` how it is called."""

    name: str
    what: str
    programs: tuple[str, ...]
    measure: Callable[[str, Path], Measured]
    count: Callable[[str, Path], int]

    @property
    def program(self) -> str | None:
        """Where it is, or None."""
        return next((found for name in self.programs if (found := shutil.which(name))), None)

    @property
    def missing(self) -> str:
        """Why it is left out."""
        return f"no program `{'` or `'.join(self.programs)}` on this machine"

    def run(self, root: Path) -> Measured:
        """Walk a tree once."""
        assert self.program is not None
        return self.measure(self.program, root)

    def check(self, root: Path, inodes: int) -> None:
        """Fail if it does not see every inode of a tree."""
        assert self.program is not None
        seen = self.count(self.program, root)
        if seen != inodes:
            raise BenchmarkFailed(f"{self.name} saw {seen:,} of {inodes:,} inodes")


def _names(argv: list[str]) -> int:
    """Return how many names, each ended by a zero byte, a program prints."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        names = 0
        while text := process.stdout.read(COUNT_BUFFER_BYTES):
            names += text.count(b"\0")
    if process.returncode != 0:
        raise BenchmarkFailed(f"`{' '.join(argv)}` ended with {process.returncode}")
    return names


def _printing(program: str, root: Path) -> Measured:
    return run_process([program, root, "-printf", PRINT_FORMAT])


def _printed(program: str, root: Path) -> int:
    return _names([program, str(root), "-printf", r"%p\0"])


# A condition on the time makes fd look at each inode; all are younger.
FD_ARGUMENTS = ["--unrestricted", "--threads=2", "--changed-after=1970-01-02", "--print0", "."]


def _fd(program: str, root: Path) -> Measured:
    return run_process([program, *FD_ARGUMENTS, root])


def _fd_saw(program: str, root: Path) -> int:
    return 1 + _names([program, *FD_ARGUMENTS, str(root)])  # it does not print the root


def gufi(threads: int) -> Peer:
    """Return GUFI's walk with so many threads, which writes its traces into a temporary folder."""

    def measured(program: str, root: Path) -> Measured:
        with tempfile.TemporaryDirectory() as folder:
            return run_process([program, "-n", str(threads), root, Path(folder, "trace")])

    def saw(program: str, root: Path) -> int:
        with tempfile.TemporaryDirectory() as folder:
            argv = [program, "-n", str(threads), str(root), str(Path(folder, "trace"))]
            said = subprocess.run(argv, check=True, stderr=subprocess.PIPE, text=True).stderr
        return sum(int(count) for count in re.findall(r"^Total \w+: +(\d+)$", said, re.MULTILINE))

    what = f"gufi_dir2trace -n {threads}, its traces in the temporary folder"
    name = f"GUFI, {threads} threads"
    return Peer(name, what, ("gufi_dir2trace",), measured, saw)


FIND = Peer("GNU find", f"find DIR -printf '{PRINT_FORMAT}'", ("find",), _printing, _printed)
BFS = Peer("bfs", f"bfs DIR -printf '{PRINT_FORMAT}'", ("bfs",), _printing, _printed)
FD = Peer("fd", f"fd {' '.join(FD_ARGUMENTS)} DIR", ("fd", "fdfind"), _fd, _fd_saw)
