"""Trees for the conformance suites: odd names, every kind of file, deep, wide."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

LONG_NAME = b"n" * 255
ODD_NAMES = (
    b"new\nline",
    b"not utf-8 \xff\xfe",
    b" blanks \t",
    b"-rf",
    b"quote'\"\\",
    b"\x01control",
    LONG_NAME,
    b"...",
)


def write(path: bytes | Path, size: int = 0) -> None:
    with open(path, "wb") as file:
        file.write(b"x" * size)


def make_odd_tree(root: Path) -> None:
    """Every kind of name and, as far as this user may, every kind of file."""
    base = os.fsencode(root)
    for i, name in enumerate(ODD_NAMES):
        write(base + b"/" + name, i * 1000)
    for name in ODD_NAMES:
        os.makedirs(base + b"/dirs/" + name + b"/inner")
        write(base + b"/dirs/" + name + b"/inner/file", 10)
    (root / "empty").mkdir()
    make_links(root)
    make_kinds(root)
    make_times(root)
    os.chmod(root / "empty", 0o7711)


def make_links(root: Path) -> None:
    os.symlink("nowhere/at/all", root / "dangling")
    os.symlink("dirs", root / "to-directory")
    os.symlink("/", root / "to-root")
    os.symlink("t" * 4000, root / "long-target")
    (root / "linked").mkdir()
    for i in range(20):
        write(root / "linked" / f"original{i}", i)
        for j in range(i % 4):
            os.link(root / "linked" / f"original{i}", root / f"dirs/name{i}-{j}")
    os.link(root / "dangling", root / "linked" / "second", follow_symlinks=False)


def make_kinds(root: Path) -> None:
    os.mkfifo(root / "fifo", 0o600)
    listener = socket.socket(socket.AF_UNIX)
    folder = os.open(root, os.O_RDONLY)  # an address has room for 108 bytes only
    try:
        listener.bind(f"/proc/self/fd/{folder}/socket")
    finally:
        listener.close()
        os.close(folder)
    with open(root / "sparse", "wb") as file:
        file.truncate(5 << 40)
    if os.geteuid() == 0:
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.mknod(root / "block", stat.S_IFBLK | 0o640, os.makedev(259, 70_000))
        write(root / "owned")
        os.chown(root / "owned", 4_294_967_294, 4_000_000_000)


def make_times(root: Path) -> None:
    for name, nanoseconds in {
        "1965": -157_766_400_000_000_001,
        "2100": 4_102_444_800_123_456_789,
        "2400": 13_569_465_600_999_999_999,  # past the end of int64 nanoseconds
    }.items():
        write(root / name)
        os.utime(root / name, ns=(nanoseconds, nanoseconds))


def make_flat(root: Path, files: int) -> None:
    folder = os.open(root, os.O_RDONLY)
    for i in range(files):
        os.close(os.open(f"file-{i:07}", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)


def make_wide(root: Path, directories: int, files_each: int) -> None:
    for i in range(directories):
        folder = root / f"directory{i}"
        folder.mkdir()
        for j in range(files_each):
            write(folder / f"file{j}")


def make_chain(root: Path, levels: int, name: bytes, siblings: int = 0) -> None:
    """A chain of directories, by descriptors since its path may be longer than PATH_MAX.

    Each level has a file and as many sibling directories, made before and after the next level:
    in whatever order a filesystem lists them, some are still to do when the way leads down.
    """
    folder = os.open(root, os.O_RDONLY)
    for _ in range(levels):
        os.close(os.open(b"f", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
        make_siblings(folder, range(siblings // 2))
        os.mkdir(name, dir_fd=folder)
        make_siblings(folder, range(siblings // 2, siblings))
        child = os.open(name, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder = child
    os.close(folder)


def make_siblings(folder: int, numbers: range) -> None:
    for i in numbers:
        os.mkdir(b"s%d" % i, dir_fd=folder)
        below = os.open(b"s%d" % i, os.O_RDONLY, dir_fd=folder)
        os.mkdir(b"below", dir_fd=below)
        os.close(below)
