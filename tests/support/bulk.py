"""Make large trees quickly, and remove any tree.

Covers: trees of equal files of several shapes for benchmarks; removal that works for paths past
PATH_MAX and for directories that cannot be written.
Does not cover: trees that hold every kind of file (tree.py).
"""

import os
import random
import stat
from pathlib import Path

DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
FAN_OUT = 100  # directories per directory, so that no level of a uniform tree is one huge directory
POOL_BYTES = 8 << 20
SUBTREES = 10  # of a lopsided tree


def make_uniform(root: Path, files: int, per_directory: int, size_bytes: int) -> int:
    """Make `files` files of random bytes, `per_directory` in each; return the number of inodes."""
    if files < 1 or per_directory < 1 or size_bytes < 0:
        raise ValueError("a uniform tree needs files >= 1, per_directory >= 1 and size_bytes >= 0")
    pool = random.Random(files).randbytes(POOL_BYTES + size_bytes)
    root.mkdir(parents=True)
    inodes = 1
    for number, first in enumerate(range(0, files, per_directory)):
        if number % FAN_OUT == 0:
            middle = root / f"d{number // FAN_OUT:04d}"
            middle.mkdir()
            inodes += 1
        leaf = middle / f"d{number % FAN_OUT:02d}"
        leaf.mkdir()
        count = min(per_directory, files - first)
        _fill(leaf, first, count, size_bytes, pool)
        inodes += 1 + count
    return inodes


def make_flat(root: Path, files: int, size_bytes: int) -> int:
    """Make one directory of `files` equal files; return the number of inodes."""
    root.mkdir(parents=True)
    _fill(root, 0, files, size_bytes, random.Random(files).randbytes(POOL_BYTES + size_bytes))
    return 1 + files


def make_chains(root: Path, chains: int, depth: int, files: int) -> int:
    """Make chains of directories, each `depth` deep, with empty files in each of them."""
    root.mkdir(parents=True)
    for number in range(chains):
        above = os.open(root, DIRECTORY_FLAGS)
        for level in range(depth):
            name = f"c{number:04d}" if level == 0 else f"d{level:04d}"
            os.mkdir(name, dir_fd=above)
            below = os.open(name, DIRECTORY_FLAGS, dir_fd=above)
            os.close(above)
            above = below
            for file in range(files):
                os.mknod(f"f{file:08d}", stat.S_IFREG | 0o644, dir_fd=above)
        os.close(above)
    return 1 + chains * depth * (1 + files)


def make_lopsided(root: Path, files: int, per_directory: int) -> int:
    """Make ten subtrees of empty files, of which the fifth has nine tenths of them."""
    root.mkdir(parents=True)
    inodes = 1
    for number in range(SUBTREES):
        heavy = number == SUBTREES // 2
        share = files * 9 // 10 if heavy else files // 10 // (SUBTREES - 1)
        inodes += make_uniform(root / f"s{number}", share, per_directory, 0)
    return inodes


def _fill(directory: Path, first: int, count: int, size_bytes: int, pool: bytes) -> None:
    """Write the files, each with another part of the pool, so that no two are alike."""
    view = memoryview(pool)
    descriptor = os.open(directory, DIRECTORY_FLAGS)
    try:
        for number in range(first, first + count):
            if size_bytes == 0:  # one call instead of two
                os.mknod(f"f{number:08d}", stat.S_IFREG | 0o644, dir_fd=descriptor)
                continue
            file = os.open(
                f"f{number:08d}", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=descriptor
            )
            start = number * 4099 % POOL_BYTES
            written = os.write(file, view[start : start + size_bytes])
            assert written == size_bytes, (number, written)
            os.close(file)
    finally:
        os.close(descriptor)


def remove_tree(root: Path) -> None:
    """Remove `root` and all below it; never follow a link. A root that does not exist is fine."""
    try:
        parent = os.open(root.parent, DIRECTORY_FLAGS & ~os.O_NOFOLLOW)
    except FileNotFoundError:
        return
    try:
        name = os.fsencode(root.name)
        try:
            is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
        except FileNotFoundError:
            return
        if is_directory:
            _empty(parent, name)
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)
    finally:
        os.close(parent)


def _empty(parent: int, name: bytes) -> None:
    """Remove everything in a directory. Holds one descriptor for each level of depth."""
    if os.geteuid() != 0:
        os.chmod(name, 0o700, dir_fd=parent)
    descriptor = os.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    try:
        with os.scandir(descriptor) as listing:
            below = [(os.fsencode(e.name), e.is_dir(follow_symlinks=False)) for e in listing]
        for child, is_directory in below:
            if is_directory:
                _empty(descriptor, child)
                os.rmdir(child, dir_fd=descriptor)
            else:
                os.unlink(child, dir_fd=descriptor)
    finally:
        os.close(descriptor)
