"""Random changes of a real directory tree, and its snapshots.

Covers: every kind of change that a backup must notice, from one seed; what a tree was at a moment,
to compare a restore with.
Does not cover: changes that only a change source minds (change_histories), the comparison itself
(compare).

Few names, used again and again: so they change their type, their inode and their shard. A second
folder beside the tree gives and takes: what is moved out of the tree leaves links behind.
"""

import ctypes
import os
import random
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from tests.support.making import ACL_ACCESS, ACL_DEFAULT
from tests.support.tree import DEFAULT_ACL, access_acl

NAMES = (b"a", b"b", b"c", b"d d", b"\xff\n")
DEPTH_MAX = 4
NAMES_MAX = 150
TRIES_MAX = 200
HOLE_BYTES = 300_000
_EXCHANGE = 2
_AT_FDCWD = -100
_libc = ctypes.CDLL(None, use_errno=True)


class TreeHistory:
    """A tree that changes; the same seed gives the same changes but for inode numbers and times."""

    def __init__(self, root: Path, outside: Path, seed: int) -> None:
        self.root = os.fsencode(root)
        self.outside = os.fsencode(outside)
        self.random = random.Random(seed)
        self.log: list[str] = []
        self._exchanged: tuple[bytes, bytes] | None = None
        os.mkdir(self.root)
        os.makedirs(self.outside, exist_ok=True)  # histories beside one another may share one

    def grow(self, names: int) -> None:
        """Make a first tree of about so many names; few names may leave no room for them all."""
        for _ in range(20 * names):
            if len(self._names()) >= names:
                return
            self._try(self.random.choice((self.create, self.make_tree, self.link)))

    def play(self, changes: int) -> None:
        """Make so many changes."""
        for _ in range(changes):
            for _ in range(TRIES_MAX):
                is_small = len(self._names()) < self.random.randrange(NAMES_MAX)
                kinds = GROWING if is_small and self.random.random() < 0.3 else CHANGES
                if self._try(getattr(self, self.random.choice(kinds))):
                    break

    def _try(self, change: Callable[[], object]) -> bool:
        """Make one change, unless this tree refuses it: no such name, not empty, into itself."""
        try:
            change()
        except (OSError, IndexError):
            return False
        self.log.append(change.__name__)  # type: ignore[attr-defined]
        return True

    # Choosing

    def _names(self, base: bytes | None = None) -> list[bytes]:
        found = []
        for folder, directories, files in os.walk(base or self.root):
            found += [os.path.join(folder, name) for name in (*directories, *files)]
        return sorted(found)  # the order in which a directory is listed is not the seed's

    def _name(self) -> bytes:
        return self.random.choice(self._names())

    def _of_type(self, *types: int) -> bytes:
        found = [path for path in self._names() if stat.S_IFMT(os.lstat(path).st_mode) in types]
        return self.random.choice(found)

    def _file(self) -> bytes:
        return self._of_type(stat.S_IFREG)

    def _directory(self) -> bytes:
        return self._of_type(stat.S_IFDIR)

    def _other(self) -> bytes:
        return self._of_type(stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO)

    def _linked(self) -> bytes:
        return self.random.choice(
            [p for p in self._names() if not _is_directory(p) and os.lstat(p).st_nlink > 1]
        )

    def _target(self) -> bytes:
        """Choose a name, there already or not."""
        holders = [self.root, *(path for path in self._names() if _is_directory(path))]
        folder = self.random.choice(holders)
        if folder[len(self.root) :].count(b"/") >= DEPTH_MAX:
            folder = self.root
        return os.path.join(folder, self.random.choice(NAMES))

    def _data(self) -> bytes:
        size = self.random.choice((0, 1, 100, 5_000, 70_000))
        return self.random.randbytes(size)

    # Making

    def create(self) -> None:
        with open(self._target(), "xb") as stream:
            stream.write(self._data())

    def make_directory(self) -> None:
        os.mkdir(self._target())

    def make_tree(self) -> None:
        path = self._target()
        os.makedirs(path + b"/a/b")
        for name in (b"/c", b"/a/c", b"/a/b/c"):
            with open(path + name, "xb") as stream:
                stream.write(self._data())

    def symlink(self) -> None:
        os.symlink(self.random.choice((b"a", b"../b", b"/nowhere")), self._target())

    def fifo(self) -> None:
        os.mkfifo(self._target())

    def link(self) -> None:
        os.link(self._other(), self._target(), follow_symlinks=False)

    def sparse(self) -> None:
        with open(self._target(), "xb") as stream:
            stream.seek(HOLE_BYTES)
            stream.write(self._data() + b"end")

    def delete_and_create(self) -> None:
        """Use a name again at once, and likely its inode number too."""
        path = self._other()
        os.unlink(path)
        with open(path, "xb") as stream:
            stream.write(self._data())

    def file_to_directory(self) -> None:
        path = self._other()
        os.unlink(path)
        os.mkdir(path)

    def directory_to_file(self) -> None:
        path = self._directory()
        shutil.rmtree(path)
        with open(path, "xb") as stream:
            stream.write(self._data())

    # Writing

    def append(self) -> None:
        with open(self._file(), "ab") as stream:
            stream.write(self._data() or b"x")

    def overwrite(self) -> None:
        with open(self._file(), "r+b") as stream:
            stream.write(self.random.randbytes(max(1, os.fstat(stream.fileno()).st_size)))

    def overwrite_and_put_mtime_back(self) -> None:
        path = self._file()
        before = os.stat(path)
        with open(path, "r+b") as stream:
            stream.write(self.random.randbytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

    def truncate(self) -> None:
        path = self._file()
        os.truncate(path, self.random.choice((0, os.stat(path).st_size // 2, HOLE_BYTES)))

    # Attributes

    def chmod(self) -> None:
        path = self.random.choice([p for p in self._names() if not os.path.islink(p)])
        os.chmod(path, self.random.choice((0o600, 0o644, 0o755, 0o4711, 0o500)))

    def chown(self) -> None:
        owner = self.random.randrange(1, 9), self.random.randrange(1, 9)
        os.chown(self._name(), *owner, follow_symlinks=False)

    def set_xattr(self) -> None:
        path = self._of_type(stat.S_IFREG, stat.S_IFDIR)
        os.setxattr(path, self.random.choice((b"user.a", b"user.b")), self.random.randbytes(9))

    def remove_xattr(self) -> None:
        path = self._of_type(stat.S_IFREG, stat.S_IFDIR)
        os.removexattr(path, self.random.choice((b"user.a", b"user.b")))

    def set_acl(self) -> None:
        path = self._of_type(stat.S_IFREG, stat.S_IFDIR)
        os.setxattr(path, ACL_ACCESS, access_acl(self.random.choice((0o640, 0o755))))
        if _is_directory(path) and self.random.random() < 0.5:
            os.setxattr(path, ACL_DEFAULT, DEFAULT_ACL)

    def set_times(self) -> None:
        """Into the past or the future."""
        when = self.random.choice((0, 1, 1_000_000_000, 4_000_000_000)) * 10**9
        times = when + self.random.randrange(10**9), when + self.random.randrange(10**9)
        os.utime(self._name(), ns=times, follow_symlinks=False)

    # Removing and moving

    def unlink(self) -> None:
        os.unlink(self._other())

    def unlink_link(self) -> None:
        os.unlink(self._linked())

    def remove_tree(self) -> None:
        if self.random.random() < 0.5:
            raise IndexError  # rather seldom
        shutil.rmtree(self._directory())

    def rename(self) -> None:
        target = self._target()
        if os.path.lexists(target):
            raise IndexError
        os.rename(self._other(), target)

    def replace(self) -> None:
        """Rename over another file."""
        os.rename(self._other(), self._other())

    def rename_directory(self) -> None:
        os.rename(self._directory(), self._target())

    def exchange(self) -> None:
        one, other = self._directory(), self._directory()
        _exchange(one, other)
        self._exchanged = one, other

    def exchange_back(self) -> None:
        if self._exchanged is None:
            raise IndexError
        _exchange(*self._exchanged)

    def exchange_any(self) -> None:
        _exchange(self._name(), self._name())

    def move_out(self) -> None:
        os.rename(self._directory(), os.path.join(self.outside, self.random.choice(NAMES)))

    def move_in(self) -> None:
        os.rename(self.random.choice(sorted(self._outside())), self._target())

    def _outside(self) -> list[bytes]:
        return [os.path.join(self.outside, name) for name in os.listdir(self.outside)]

    def link_outside(self) -> None:
        """Give an inode a name that is not in the tree, or take such a one away."""
        name = os.path.join(self.outside, b"link%d" % self.random.randrange(3))
        if os.path.lexists(name):
            os.unlink(name)
        else:
            os.link(self._other(), name, follow_symlinks=False)


GROWING = ("create", "create", "make_directory", "make_tree", "symlink", "fifo", "link", "sparse")
CHANGES = (
    *GROWING,
    "delete_and_create",
    "file_to_directory",
    "directory_to_file",
    "append",
    "overwrite",
    "overwrite_and_put_mtime_back",
    "truncate",
    "chmod",
    "chown",
    "set_xattr",
    "remove_xattr",
    "set_acl",
    "set_times",
    "link",
    "unlink",
    "unlink_link",
    "unlink_link",
    "remove_tree",
    "rename",
    "replace",
    "rename_directory",
    "rename_directory",
    "exchange",
    "exchange_back",
    "exchange_back",
    "exchange_any",
    "move_out",
    "move_in",
    "link_outside",
)


def _is_directory(path: bytes) -> bool:
    return stat.S_ISDIR(os.lstat(path).st_mode)


def _exchange(one: bytes, other: bytes) -> None:
    if one == other or _libc.renameat2(_AT_FDCWD, one, _AT_FDCWD, other, _EXCHANGE) != 0:
        raise OSError(ctypes.get_errno(), "renameat2", one)
