"""Random histories on a real filesystem, and whether a change source covers what differs.

Covers: the changes, snapshots of a tree, the rule by which a planner uses a change set.
Run as a program it mounts a filesystem of the named type in a mount namespace of its own, so that
nothing stays behind whatever happens, and plays histories on it.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import mmap
import os
import random
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from pathlib import Path

from filesystems.fanotify.libc import handle_at, open_handle
from filesystems.fanotify.reader import Reader
from filesystems.fanotify.source import FanotifySource
from shards.changes import ChangeSet

RENAME_EXCHANGE = 2
_libc = ctypes.CDLL(None, use_errno=True)

Entry = tuple[object, ...]


@contextmanager
def running_reader(dataset: str, root: bytes, folder: Path) -> Iterator[FanotifySource]:
    """Run a reader in a thread; an error of it goes up at the end."""
    receiving, sending = os.pipe()
    with Reader(dataset, root, folder) as reader, ThreadPoolExecutor(max_workers=1) as pool:
        end = pool.submit(reader.run, receiving)
        try:
            yield FanotifySource(dataset, root, folder)
        finally:
            os.close(sending)  # its end is readable
            wait([end])
            os.close(receiving)
    end.result()


def snapshot(root: bytes) -> dict[bytes, Entry]:
    """Return all that a backup could see of each name, but for access times."""
    found: dict[bytes, Entry] = {}

    def take(path: bytes, relative: bytes) -> None:
        status = os.lstat(path)
        kind = stat.S_IFMT(status.st_mode)
        data: object = None
        if kind == stat.S_IFREG:
            data = hashlib.sha256(Path(os.fsdecode(path)).read_bytes()).digest()
        elif kind == stat.S_IFLNK:
            data = os.readlink(path)
        attributes = tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        )
        found[relative] = (
            status.st_ino,
            status.st_nlink,
            status.st_mode,
            status.st_uid,
            status.st_gid,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
            data,
            attributes,
        )
        if kind == stat.S_IFDIR:
            for name in os.listdir(path):
                take(os.path.join(path, name), os.path.join(relative, name))

    take(root, b"")
    return found


def missed(
    before: dict[bytes, Entry], after: dict[bytes, Entry], changes: ChangeSet
) -> list[bytes]:
    """Return the names that differ and that a planner would not look at.

    A planner looks at the names, at all in the tree or the view that is below the subtrees, and
    at the names that the view has of the given inodes and of those that it saw to have several.
    """
    names, trees = set(changes.names), [path + b"/" for path in changes.subtrees]
    everywhere = b"" in changes.subtrees
    looked = {
        path
        for path in before.keys() | after.keys()
        if everywhere or path in names or any((path + b"/").startswith(tree) for tree in trees)
    }
    inodes = set(changes.inodes)
    for state in (before, after):
        for path in looked & state.keys():
            inode, links, mode = state[path][:3]
            if not stat.S_ISDIR(mode) and links > 1:
                inodes.add(inode)
    looked |= {path for path, entry in before.items() if entry[0] in inodes}
    return sorted(
        path
        for path in before.keys() | after.keys()
        if before.get(path) != after.get(path) and path not in looked
    )


class History:
    """Random changes of a tree, and of one beside it on the same filesystem."""

    def __init__(self, root: bytes, outside: bytes, seed: int, without: Sequence[str] = ()) -> None:
        self.root, self.outside = root, outside
        self.without = without  # changes that are not to be made
        self.random = random.Random(seed)
        self.opened: list[int] = []
        self.mapped: list[tuple[int, mmap.mmap]] = []
        self.count = 0
        self.log: list[str] = []

    def close(self) -> None:
        for descriptor in self.opened:
            os.close(descriptor)
        for descriptor, mapping in self.mapped:
            mapping.close()
            os.close(descriptor)
        self.opened, self.mapped = [], []

    # What to change.

    def _walk(self, base: bytes) -> tuple[list[bytes], list[bytes]]:
        directories, others = [base], []
        for folder, below, names in os.walk(base):
            below.sort()  # the order of a listing is not the same everywhere
            names.sort()
            for name in below:
                path = os.path.join(folder, name)
                (others if os.path.islink(path) else directories).append(path)
            others += [os.path.join(folder, name) for name in names]
        return directories, others

    def _base(self) -> bytes:
        return self.root if self.random.random() < 0.85 else self.outside

    def _directory(self, *, may_be_root: bool = True) -> bytes:
        directories = self._walk(self._base())[0]
        return self.random.choice(directories if may_be_root else directories[1:])

    def _other(self) -> bytes:
        return self.random.choice(self._walk(self._base())[1])

    def _file(self) -> bytes:
        files = [p for p in self._walk(self._base())[1] if stat.S_ISREG(os.lstat(p).st_mode)]
        return self.random.choice(files)

    def _any(self) -> bytes:
        return self._other() if self.random.random() < 0.7 else self._directory()

    def _new(self) -> bytes:
        # Few names, so that they are used again, also for other types.
        name = b"n%d" % self.random.randrange(8)
        return os.path.join(self._directory(), name + self.random.choice([b"", b"", b"", b"-\xff"]))

    def _data(self) -> bytes:
        return self.random.randbytes(self.random.randrange(1, 40))

    # How.

    def _write(self, path: bytes) -> None:
        # A pipe may have the name: without O_NONBLOCK that would wait for a reader.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(path, flags, 0o644), "wb") as stream:
            stream.write(self._data())

    def create(self) -> None:
        self._write(self._new())

    def append(self) -> None:
        with open(self._file(), "ab") as stream:
            stream.write(self._data())

    def overwrite_same_size(self) -> None:
        path = self._file()
        status = os.stat(path)
        with open(path, "r+b") as stream:
            stream.write(self.random.randbytes(status.st_size))
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    def truncate(self) -> None:
        os.truncate(self._file(), self.random.randrange(50))

    def chmod(self) -> None:
        path = self._any()
        if not os.path.islink(path):
            os.chmod(path, self.random.choice([0o600, 0o640, 0o755, 0o700]))

    def chown(self) -> None:
        os.chown(
            self._any(), self.random.randrange(9), self.random.randrange(9), follow_symlinks=False
        )

    def set_attribute(self) -> None:
        os.setxattr(
            self._any(),
            b"trusted.a%d" % self.random.randrange(3),
            self._data(),
            follow_symlinks=False,
        )

    def remove_attribute(self) -> None:
        os.removexattr(
            self._any(), b"trusted.a%d" % self.random.randrange(3), follow_symlinks=False
        )

    def set_times(self) -> None:
        when = self.random.choice([0, 4_000_000_000, 1_000_000_000])
        os.utime(self._any(), (when, when), follow_symlinks=False)

    def link(self) -> None:
        os.link(self._other(), self._new(), follow_symlinks=False)

    def symlink(self) -> None:
        os.symlink(b"n1", self._new())

    def fifo(self) -> None:
        os.mkfifo(self._new())

    def unlink(self) -> None:
        os.unlink(self._other())

    def rename_other(self) -> None:
        os.rename(self._other(), self._new())

    def replace(self) -> None:
        os.rename(self._other(), self._other())

    def rename_directory(self) -> None:
        os.rename(self._directory(may_be_root=False), self._new())

    def exchange(self) -> None:
        one, two = self._any(), self._any()
        if {one, two} & {self.root, self.outside}:
            return
        if _libc.renameat2(-100, one, -100, two, RENAME_EXCHANGE) != 0:
            raise OSError(ctypes.get_errno(), "renameat2")

    def make_directory(self) -> None:
        os.mkdir(self._new())

    def remove_directory(self) -> None:
        os.rmdir(self._directory(may_be_root=False))

    def remove_tree(self) -> None:
        if self.random.random() < 0.3:
            shutil.rmtree(self._directory(may_be_root=False))

    def make_tree(self) -> None:
        """mkdir -p, files in it, and a rename at once."""
        path = self._new()
        os.makedirs(path + b"/n1/n2")
        for name in (b"/n3", b"/n1/n3", b"/n1/n2/n3"):
            self._write(path + name)
        os.rename(path + b"/n1", self._new())

    def move_in(self) -> None:
        directories = self._walk(self.outside)[0][1:]
        target = os.path.join(self.random.choice(self._walk(self.root)[0]), b"n1")
        os.rename(self.random.choice(directories), target)

    def move_out(self) -> None:
        directories = self._walk(self.root)[0][1:]
        os.rename(self.random.choice(directories), self.outside + b"/o%d" % self.count)

    def write_open(self) -> None:
        """Write through a descriptor whose name may have become another one, or none."""
        if self.opened and self.random.random() < 0.7:
            descriptor = self.opened.pop(self.random.randrange(len(self.opened)))
            os.write(descriptor, self._data())
            os.close(descriptor)
        else:
            self.opened.append(os.open(self._file(), os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))

    def write_nameless(self) -> None:
        """Write to a linked file through a name that was there for a moment only."""
        name = self._new()
        os.link(self._file(), name)
        self.opened.append(os.open(name, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC))
        os.unlink(name)

    def link_unnamed(self) -> None:
        """O_TMPFILE: its events have a name that never was."""
        flags = os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC
        descriptor = os.open(self._directory(), flags, 0o600)
        self.opened.append(descriptor)
        if _libc.linkat(-100, b"/proc/self/fd/%d" % descriptor, -100, self._new(), 0x400) != 0:
            raise OSError(ctypes.get_errno(), "linkat")
        os.write(descriptor, self._data())

    def write_mapped(self) -> None:
        """Write through a mapping: no event before it is closed."""
        if self.mapped and self.random.random() < 0.7:
            descriptor, mapping = self.random.choice(self.mapped)
            if os.fstat(descriptor).st_size == 0:
                return  # nothing is mapped behind the end of a file
            mapping[0 : len(mapping)] = self.random.randbytes(len(mapping))
        elif len(self.mapped) < 3:
            descriptor = os.open(self._file(), os.O_RDWR | os.O_CLOEXEC)
            self.opened.append(descriptor)
            size = os.fstat(descriptor).st_size
            mapping = mmap.mmap(descriptor, size)
            self.mapped.append((os.dup(descriptor), mapping))

    def write_by_handle(self) -> None:
        """As a kernel NFS server does."""
        base = os.open(self.root, os.O_RDONLY | os.O_CLOEXEC)
        try:
            handle = handle_at(base, os.path.relpath(self._file(), self.root))
            place = open_handle(base, handle)
        finally:
            os.close(base)
        try:
            with open(f"/proc/self/fd/{place}", "ab") as stream:
                stream.write(self._data())
        finally:
            os.close(place)

    def play(self, steps: int) -> None:
        """Make so many changes that succeed."""
        changes: list[Callable[[], None]] = [
            getattr(self, name)
            for name in sorted(CHANGES.keys() - set(self.without))
            for _ in range(CHANGES[name])
        ]
        done = tries = 0
        while done < steps and tries < 20 * steps:
            tries += 1
            self.count += 1
            change = self.random.choice(changes)
            # Not empty, no such name left, a directory into itself: try another one.
            with suppress(OSError, IndexError, ValueError, shutil.Error):
                change()
                done += 1
                self.log.append(change.__name__)


CHANGES = {
    "create": 6, "append": 3, "overwrite_same_size": 2, "truncate": 2, "chmod": 2, "chown": 2,
    "set_attribute": 2, "remove_attribute": 1, "set_times": 2, "link": 4, "symlink": 1, "fifo": 1,
    "unlink": 4, "rename_other": 3, "replace": 2, "rename_directory": 4, "exchange": 3,
    "make_directory": 5, "remove_directory": 1, "remove_tree": 1, "make_tree": 2, "move_in": 1,
    "move_out": 1, "write_open": 4, "link_unnamed": 1, "write_mapped": 2, "write_by_handle": 1,
    "write_nameless": 3,
}  # fmt: skip


def play(base: Path, state: Path, seeds: range, steps: int) -> list[str]:
    """Play histories below a folder; return a sentence for each that was not covered."""
    root, outside = bytes(base / "root"), bytes(base / "outside")
    os.mkdir(root)
    os.mkdir(outside)
    wrong: list[str] = []
    with running_reader("histories", root, state / "changes") as source:
        for seed in seeds:
            history = History(root, outside, seed)
            history.play(40)
            moments = []
            try:
                for turn in range(3):
                    position = source.position()
                    moments.append((position, snapshot(root), len(history.log)))
                    history.play(history.random.choice([1, 3, 10, steps]))
                    if turn == 1:
                        source.forget(moments[0][0])
                    for since, before, start in moments:
                        changes = source.changes(since)
                        after = snapshot(root)
                        if names := missed(before, after, changes):
                            wrong.append(f"seed {seed}: {names[:4]} after {history.log[start:]}")
            finally:
                history.close()
            for folder in (root, outside):
                for name in os.listdir(folder):
                    path = os.path.join(folder, name)
                    if os.path.isdir(path) and not os.path.islink(path):
                        shutil.rmtree(path)
                    else:
                        os.unlink(path)
    return wrong


def main() -> int:
    """Mount, play, print what was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("type", choices=["tmpfs", "ext4", "xfs", "btrfs"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    mounted = arguments.folder / "mounted"
    mounted.mkdir()
    with in_own_namespace(), mount(arguments.type, mounted, arguments.folder / "image"):
        seeds = range(arguments.first, arguments.first + arguments.seeds)
        wrong = play(mounted, arguments.folder, seeds, arguments.steps)
    for sentence in wrong:
        print(sentence)
    return 1 if wrong else 0


@contextmanager
def in_own_namespace() -> Iterator[None]:
    """Take a mount namespace that ends with this process, and its mounts and loop devices."""
    if _libc.unshare(0x20000) != 0:  # CLONE_NEWNS
        raise OSError(ctypes.get_errno(), "unshare")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    yield


@contextmanager
def mount(kind: str, target: Path, image: Path) -> Iterator[None]:
    """Mount a new filesystem."""
    if kind == "tmpfs":
        subprocess.run(["mount", "-t", "tmpfs", "none", target], check=True)
    else:
        with image.open("wb") as stream:
            stream.truncate(400 << 20)
        subprocess.run([f"mkfs.{kind}", "-q", image], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", "loop", image, target], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", target], check=True)
        image.unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(main())
