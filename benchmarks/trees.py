"""The trees that a scan is measured on.

Covers: their shapes and sizes; one tree at a time, made and removed.
Does not cover: how they are made quickly (tests/support/bulk.py).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.runner import say
from tests.support.bulk import make_chains, make_flat, make_lopsided, make_uniform, remove_tree

PER_DIRECTORY = 100
CHAIN_DEPTH = 300
FILES_PER_LINK = 10


@dataclass(frozen=True, slots=True)
class Tree:
    """A shape; `make` takes where, and the number of files in full."""

    name: str
    what: str
    files: int
    make: Callable[[Path, int], int]

    @contextmanager
    def made(self, root: Path, files: int) -> Iterator[int]:
        """Make it with so many files; gives the number of inodes."""
        say(f"making {files:,} files: {self.what}")
        try:
            yield self.make(root, files)
        finally:
            remove_tree(root)


def _chains(root: Path, files: int) -> int:
    return make_chains(root, files // (CHAIN_DEPTH * FILES_PER_LINK), CHAIN_DEPTH, FILES_PER_LINK)


TREES = (
    Tree(
        "uniform",
        f"{PER_DIRECTORY} files a directory, {PER_DIRECTORY} directories a directory",
        990_000,
        lambda root, files: make_uniform(root, files, PER_DIRECTORY, 0),
    ),
    Tree("flat", "one directory", 500_000, lambda root, files: make_flat(root, files, 0)),
    Tree(
        "deep",
        f"chains of {CHAIN_DEPTH} directories, {FILES_PER_LINK} files in each",
        180_000,
        _chains,
    ),
    Tree(
        "lopsided",
        f"one of ten subtrees has 90 % of the inodes, {PER_DIRECTORY} files a directory",
        495_000,
        lambda root, files: make_lopsided(root, files, PER_DIRECTORY),
    ),
)
