"""A filesystem in memory, small enough that every awkward thing happens to it often.

Covers: names, inodes with numbers that are used again, link counts, times with a coarse clock, all
kinds of changes to a tree, directories that leave the tree and come back, what cannot be read.
Does not cover: scanning and backing up (model_run), Bacula (model).

Contents are numbers: every write makes a new one, so two states of a file are never mistaken for
one another, whatever their attributes say.
"""

import random
import stat
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

NAMES = (b"a", b"b", b"c")
DEPTH_MAX = 3
NAMES_MAX = 24
SECOND = 10**9
START_NS = 1_700_000_000 * SECOND


@dataclass(slots=True, eq=False)
class Inode:
    """What stat(2) would tell, a content, and for a directory its names."""

    ino: int
    mode: int
    mtime: int
    ctime: int
    uid: int = 0
    gid: int = 0
    nlink: int = 1
    size: int = 0
    rdev: int = 0
    content: int = 0
    entries: "dict[bytes, Inode] | None" = None
    readable: bool = True  # a directory that is not cannot be listed

    @property
    def is_directory(self) -> bool:
        return self.entries is not None


class Place(NamedTuple):
    """A name in the tree."""

    path: bytes
    parent: Inode
    name: bytes
    inode: Inode


Target = tuple[bytes, Inode, bytes]  # a path, the directory it is in, its name there


@dataclass(slots=True)
class Clock:
    """Time in ns, which the filesystem sees in steps of its granularity."""

    granularity_ns: int
    now_ns: int = START_NS
    stamp_ns: int = field(init=False, default=0)

    def advance(self, ns: int) -> None:
        self.now_ns += ns
        self.stamp_ns = self.now_ns - self.now_ns % self.granularity_ns


class ModelTree:
    """A tree that changes at random; the same generator gives the same changes.

    kinds are the names of the changes that it is to have; none: chosen at random.
    """

    def __init__(self, random_: random.Random, kinds: Collection[str] = ()) -> None:
        self.random = random_
        self.clock = Clock(random_.choice((1, 4_000_000, 10_000_000, SECOND)))
        # POSIX leaves it open whether rename(2) moves the ctime of what is renamed.
        self.rename_moves_ctime = random_.random() < 0.7
        self._numbers: list[int] = []
        self._next_number = 2
        self._next_content = 1
        self._exchanged = (b"", b"")
        # Each tree has some kinds of changes only: so those that it has meet more often.
        self._changes = [each for each in _CHANGES if random_.random() < 0.5]
        if kinds:
            self._changes = [each for each in _CHANGES if each.__name__.lstrip("_") in kinds]
        self._changes += [ModelTree._add, ModelTree._set_attributes]
        self.clock.advance(SECOND)
        self.root = self._make(stat.S_IFDIR | 0o755)
        self.outside = self._make(stat.S_IFDIR | 0o755)

    # Looking

    def places(self) -> list[Place]:
        """Return every name below the root, parents before their children."""
        return list(_walk(self.root, b""))

    def find(self, path: bytes) -> Inode | None:
        """Return what a path leads to; no link is followed."""
        inode = self.root
        for name in path.split(b"/") if path else ():
            if inode.entries is None or name not in inode.entries:
                return None
            inode = inode.entries[name]
        return inode

    # Inodes

    def _make(self, mode: int) -> Inode:
        # The number that was freed last is used first, as ext4 and xfs like to do.
        if self._numbers:
            ino = self._numbers.pop()
        else:
            ino = self._next_number
            self._next_number += 1
        now = self.clock.stamp_ns
        inode = Inode(ino, mode, now, now)
        if stat.S_ISDIR(mode):
            inode.entries = {}
            inode.nlink = 2
        else:
            self._write(inode)
        return inode

    def _write(self, inode: Inode) -> None:
        inode.content = self._next_content
        self._next_content += 1
        inode.mtime = inode.ctime = self.clock.stamp_ns

    def _unlink(self, parent: Inode, name: bytes) -> None:
        assert parent.entries is not None
        inode = parent.entries.pop(name)
        self._touch(parent)
        inode.nlink -= 1
        inode.ctime = self.clock.stamp_ns
        if inode.is_directory:
            assert not inode.entries
            inode.nlink = 0
        if inode.nlink == 0:
            self._numbers.append(inode.ino)

    def _touch(self, directory: Inode) -> None:
        directory.mtime = directory.ctime = self.clock.stamp_ns

    def _remove(self, parent: Inode, name: bytes) -> None:
        """Remove a name and all that is below it."""
        assert parent.entries is not None
        inode = parent.entries[name]
        for below in list(inode.entries or ()):
            self._remove(inode, below)
        self._unlink(parent, name)

    def _put(self, parent: Inode, name: bytes, inode: Inode) -> None:
        assert parent.entries is not None
        if name in parent.entries:
            self._remove(parent, name)
        parent.entries[name] = inode
        self._touch(parent)

    # Changes

    def change(self) -> str:
        """Make one random change; return its name."""
        self.clock.advance(self.random.choice((0, 1000, 1000, 3_000_000, SECOND)))
        places = self.places()
        while True:
            is_small = len(places) < self.random.randrange(NAMES_MAX - 4)
            operation = ModelTree._add if is_small else self.random.choice(self._changes)
            if operation(self, places):
                return operation.__name__.lstrip("_")

    def _pick(self, places: list[Place], wanted: Callable[[Place], bool]) -> Place | None:
        found = [place for place in places if wanted(place)]
        return self.random.choice(found) if found else None

    def _file(self, places: list[Place]) -> Place | None:
        return self._pick(places, lambda place: not place.inode.is_directory)

    def _directory(self, places: list[Place]) -> Place | None:
        return self._pick(places, lambda place: place.inode.is_directory)

    def _target(self, places: list[Place]) -> Target | None:
        """Choose a name, which may be there already."""
        holders = [(b"", self.root)]
        holders += [(p.path, p.inode) for p in places if p.inode.is_directory]
        path, parent = self.random.choice(holders)
        if path.count(b"/") + (path != b"") >= DEPTH_MAX:
            return None
        name = self.random.choice(NAMES)
        return (path + b"/" + name if path else name), parent, name

    def _free(self, places: list[Place]) -> Target | None:
        """Choose a name that is not there."""
        if len(places) >= NAMES_MAX:
            return None
        targets = (self._target(places) for _ in range(8))
        return next((t for t in targets if t is not None and self.find(t[0]) is None), None)

    def _add(self, places: list[Place]) -> bool:
        """Make a new name."""
        target = self._free(places)
        return target is not None and self._create(places, target)

    def _create(self, places: list[Place], target: Target | None = None) -> bool:
        """Make a new inode; something else may have had the name until now."""
        target = target or self._target(places)
        if target is None or len(places) >= NAMES_MAX:
            return False
        _, parent, name = target
        kind = self.random.choice(
            (*(4 * [stat.S_IFREG]), *(3 * [stat.S_IFDIR]), stat.S_IFLNK, stat.S_IFSOCK)
        )
        # Where the name is there already, the number of the old inode is likely to come back here.
        self._put(parent, name, self._make(kind | 0o644))
        return True

    def _write_file(self, places: list[Place]) -> bool:
        if (place := self._file(places)) is None:
            return False
        self._write(place.inode)
        place.inode.size = self.random.choice((place.inode.size, 1, 2))
        return True

    def _write_and_put_mtime_back(self, places: list[Place]) -> bool:
        if (place := self._file(places)) is None:
            return False
        mtime = place.inode.mtime
        self._write(place.inode)
        place.inode.mtime = mtime
        return True

    def _set_attributes(self, places: list[Place]) -> bool:
        if not places:
            return False
        inode = self.random.choice(places).inode
        what = self.random.randrange(4)
        if what == 0:
            inode.mode ^= self.random.choice((0o001, 0o020))
        elif what == 1:
            inode.uid ^= 1
        elif what == 2:
            inode.gid ^= 1
        else:
            inode.mtime = self.clock.stamp_ns + self.random.choice((-1, 1)) * 3600 * SECOND
        inode.ctime = self.clock.stamp_ns
        return True

    def _set_content_only(self, places: list[Place]) -> bool:
        """Change what only the ctime tells of: an xattr."""
        if not places:
            return False
        inode = self.random.choice(places).inode
        inode.content = self._next_content
        self._next_content += 1
        inode.ctime = self.clock.stamp_ns
        return True

    def _link(self, places: list[Place]) -> bool:
        place, target = self._file(places), self._free(places)
        if place is None or target is None:
            return False
        _, parent, name = target
        place.inode.nlink += 1
        place.inode.ctime = self.clock.stamp_ns
        self._put(parent, name, place.inode)
        return True

    def _unlink_file(self, places: list[Place]) -> bool:
        if (place := self._file(places)) is None:
            return False
        self._unlink(place.parent, place.name)
        return True

    def _remove_tree(self, places: list[Place]) -> bool:
        if self.random.random() < 0.5 or (place := self._directory(places)) is None:
            return False
        self._remove(place.parent, place.name)
        return True

    def _move(self, place: Place, parent: Inode, name: bytes) -> None:
        assert place.parent.entries is not None
        del place.parent.entries[place.name]
        self._touch(place.parent)
        self._put(parent, name, place.inode)
        self._renamed(place.inode)

    def _renamed(self, inode: Inode) -> None:
        if self.rename_moves_ctime:
            inode.ctime = self.clock.stamp_ns

    def _rename(self, places: list[Place]) -> bool:
        target = self._target(places)
        if not places or target is None:
            return False
        place = self.random.choice(places)
        path, parent, name = target
        assert parent.entries is not None
        if path == place.path or path.startswith(place.path + b"/"):
            return False
        if place.path.startswith(path + b"/") or parent.entries.get(name) is place.inode:
            return False  # into its own parent; two names of one inode: rename(2) does nothing
        self._move(place, parent, name)
        return True

    def _exchange(self, places: list[Place]) -> bool:
        """Swap two names, as RENAME_EXCHANGE or three renames do."""
        if len(places) < 2:
            return False
        wants_directories = self.random.random() < 0.8
        places = [p for p in places if p.inode.is_directory or not wants_directories]
        if len(places) < 2:
            return False
        one, other = self.random.sample(places, 2)
        return self._swap(one, other)

    def _swap(self, one: Place, other: Place) -> bool:
        if one.path.startswith(other.path + b"/") or other.path.startswith(one.path + b"/"):
            return False
        assert one.parent.entries is not None
        assert other.parent.entries is not None
        one.parent.entries[one.name] = other.inode
        other.parent.entries[other.name] = one.inode
        for place in (one, other):
            self._touch(place.parent)
            self._renamed(place.inode)
        self._exchanged = one.path, other.path
        return True

    def _exchange_back(self, places: list[Place]) -> bool:
        """Swap the two names again that were swapped last."""
        found = [place for place in places if place.path in self._exchanged]
        return len(found) == 2 and self._swap(*found)

    def _move_out(self, places: list[Place]) -> bool:
        """Move a name out of the tree, to come back later."""
        assert self.outside.entries is not None
        if not places or len(self.outside.entries) > 3:
            return False
        place = self._directory(places) or self.random.choice(places)
        self._move(place, self.outside, b"%d" % self.random.randrange(4))
        return True

    def _move_in(self, places: list[Place]) -> bool:
        """Move something into the tree that was outside."""
        assert self.outside.entries is not None
        target = self._target(places)
        if not self.outside.entries or target is None:
            return False
        name = self.random.choice(sorted(self.outside.entries))
        place = Place(name, self.outside, name, self.outside.entries[name])
        self._move(place, *target[1:])
        return True

    def _link_outside(self, places: list[Place]) -> bool:
        """Give a file a name outside of the tree, or take it away."""
        assert self.outside.entries is not None
        place = self._file(places)
        if place is None:
            return False
        name = b"%d" % self.random.randrange(4)
        if name in self.outside.entries:
            self._remove(self.outside, name)
            return True
        place.inode.nlink += 1
        place.inode.ctime = self.clock.stamp_ns
        self._put(self.outside, name, place.inode)
        return True

    def _hide(self, places: list[Place]) -> bool:
        """Make something unreadable, or readable again; nothing but the mode would tell."""
        if not places or self.random.random() < 0.5:
            return False
        inode = self.random.choice(places).inode
        inode.readable = not inode.readable
        inode.mode ^= 0o400
        inode.ctime = self.clock.stamp_ns
        return True

    def show_all(self) -> str:
        """Make everything readable."""
        self.clock.advance(1000)
        for place in self.places():
            if not place.inode.readable:
                place.inode.readable = True
                place.inode.mode ^= 0o400
                place.inode.ctime = self.clock.stamp_ns
        return "show_all"


def _walk(directory: Inode, path: bytes) -> Iterator[Place]:
    assert directory.entries is not None
    prefix = path + b"/" if path else b""
    for name, inode in directory.entries.items():
        yield Place(prefix + name, directory, name, inode)
        if inode.entries is not None:
            yield from _walk(inode, prefix + name)


_CHANGES = (
    ModelTree._create,
    ModelTree._write_file,
    ModelTree._write_and_put_mtime_back,
    ModelTree._set_content_only,
    ModelTree._link,
    ModelTree._link,
    ModelTree._unlink_file,
    ModelTree._remove_tree,
    ModelTree._rename,
    ModelTree._exchange,
    ModelTree._exchange_back,
    ModelTree._exchange_back,
    ModelTree._move_out,
    ModelTree._move_in,
    ModelTree._link_outside,
    ModelTree._hide,
)
