"""Random histories on the stand-in, and whether the change source covers what differs.

Covers: which changes, positions between them, other consumers that lag behind.
"""

from __future__ import annotations

import os
import random
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filesystems.lustre.api import Library
from filesystems.lustre.settings import LustreChangelogs
from filesystems.lustre.source import LustreSource
from tests.support.change_histories import missed, snapshot
from tests.support.lustre.targets import Target, library, standin_state
from tests.support.lustre.tree import LustreTree


class History:
    """Random changes of a root, and of a directory beside it."""

    def __init__(self, tree: LustreTree, root: bytes, outside: bytes, seed: int) -> None:
        self.tree, self.root, self.outside = tree, root, outside
        self.random = random.Random(seed)
        self.opened: list[tuple[int, bytes]] = []
        self.log: list[str] = []

    def close(self) -> None:
        for descriptor, _ in self.opened:
            os.close(descriptor)
        self.opened = []

    def _all(self) -> tuple[list[bytes], list[bytes]]:
        base = self.root if self.random.random() < 0.85 else self.outside
        directories, others = [base], []
        for folder, below, names in os.walk(base):
            below.sort()
            for name in below:
                path = os.path.join(folder, name)
                (others if os.path.islink(path) else directories).append(path)
            others += [os.path.join(folder, name) for name in sorted(names)]
        return directories, others

    def _directory(self) -> bytes:
        return self.random.choice(self._all()[0])

    def _below(self) -> bytes:
        return self.random.choice(self._all()[0][1:])

    def _other(self) -> bytes:
        return self.random.choice(self._all()[1])

    def _file(self) -> bytes:
        return self.random.choice([p for p in self._all()[1] if stat.S_ISREG(os.lstat(p).st_mode)])

    def _any(self) -> bytes:
        return self._other() if self.random.random() < 0.7 else self._directory()

    def _new(self) -> bytes:
        name = b"n%d" % self.random.randrange(8)
        return os.path.join(self._directory(), name + self.random.choice([b"", b"", b" \xff\n"]))

    def _data(self) -> bytes:
        return self.random.randbytes(self.random.randrange(1, 40))

    def create(self) -> None:
        self.tree.create(self._new(), self._data())

    def create_empty(self) -> None:
        self.tree.create(self._new())

    def write(self) -> None:
        self.tree.write(self._file(), self._data())

    def truncate(self) -> None:
        self.tree.truncate(self._file(), self.random.randrange(50))

    def chmod(self) -> None:
        path = self._any()
        if not os.path.islink(path):
            self.tree.chmod(path, self.random.choice([0o600, 0o640, 0o755, 0o700]))

    def set_attribute(self) -> None:
        self.tree.set_attribute(self._file(), b"user.a", self._data())

    def set_times(self) -> None:
        self.tree.set_times(self._any(), self.random.choice([0, 1_000_000_000, 1_700_000_000]))

    def link(self) -> None:
        self.tree.link(self._other(), self._new())

    def symlink(self) -> None:
        self.tree.symlink(b"n1", self._new())

    def fifo(self) -> None:
        self.tree.fifo(self._new())

    def unlink(self) -> None:
        self.tree.unlink(self._other())

    def rename_other(self) -> None:
        self.tree.rename(self._other(), self._new())

    def replace(self) -> None:
        self.tree.rename(self._other(), self._other())

    def save_as(self) -> None:
        """Write a new file and rename it onto one, as editors do."""
        path = self._file()
        self.tree.create(path + b"~", self._data())
        self.tree.rename(path + b"~", path)

    def rename_directory(self) -> None:
        self.tree.rename(self._below(), self._new())

    def make_directory(self) -> None:
        self.tree.mkdir(self._new())

    def remove_directory(self) -> None:
        self.tree.rmdir(self._below())

    def remove_tree(self) -> None:
        if self.random.random() < 0.3:
            self.tree.remove_tree(self._below())

    def make_tree(self) -> None:
        path = self._new()
        self.tree.mkdir(path)
        self.tree.mkdir(path + b"/n1")
        self.tree.create(path + b"/n1/n2", self._data())
        self.tree.rename(path + b"/n1", self._new())

    def move_in(self) -> None:
        moved = self.random.choice(sorted(os.listdir(self.outside)))
        self.tree.rename(os.path.join(self.outside, moved), self.root + b"/n1")

    def move_out(self) -> None:
        name = b"/o%d" % len(self.log)
        self.tree.rename(self._below(), self.outside + name)

    def write_open(self) -> None:
        """Write through a descriptor whose name may have become another one, or none."""
        if self.opened and self.random.random() < 0.7:
            descriptor, what = self.opened.pop(self.random.randrange(len(self.opened)))
            os.write(descriptor, self._data())
            os.close(descriptor)
            self.tree.data(11, what)
        else:
            path = self._file()
            flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC
            self.opened.append((os.open(path, flags), self.tree.fid(path)))

    def play(self, steps: int) -> None:
        """Make so many changes that succeed."""
        changes: list[Callable[[], None]] = [
            getattr(self, name) for name in sorted(CHANGES) for _ in range(CHANGES[name])
        ]
        done = tries = 0
        while done < steps and tries < 20 * steps:
            tries += 1
            change = self.random.choice(changes)
            with suppress(OSError, IndexError):  # not empty, no such name left: try another one
                change()
                done += 1
                self.log.append(change.__name__)


CHANGES = {
    "create": 5, "create_empty": 1, "write": 3, "truncate": 2, "chmod": 2, "set_attribute": 2,
    "set_times": 5, "link": 4, "symlink": 1, "fifo": 1, "unlink": 4, "rename_other": 3,
    "replace": 2, "save_as": 3, "rename_directory": 4, "make_directory": 5, "remove_directory": 1,
    "remove_tree": 1, "make_tree": 2, "move_in": 1, "move_out": 1, "write_open": 4,
}  # fmt: skip


def play(base: Path, seed: int, steps: int = 60) -> list[str]:
    """Play one history below a folder; return a sentence for each thing that was not covered."""
    wrong: list[str] = []
    choice = random.Random(seed)
    mount, state = base / f"mount{seed}", base / f"state{seed}"
    mount.mkdir()
    with standin_state(state):
        tree = LustreTree(mount, state, targets=choice.choice([1, 2, 3]), seed=seed)
        root, outside = bytes(mount / "root"), bytes(mount / "outside")
        tree.mkdir(root)
        tree.mkdir(outside)
        history = History(tree, root, outside, seed)
        history.play(20)
        consumers = tuple((target.name, target.register("backup")) for target in tree.targets)
        others = [target.register() if choice.random() < 0.5 else "" for target in tree.targets]
        settings = LustreChangelogs(root, bytes(mount), consumers)
        source = LustreSource("set", settings, base / f"log{seed}", library())
        moments = []
        try:
            for turn in range(4):
                position = source.position()
                moments.append((position, snapshot(root), len(history.log)))
                history.play(choice.choice([1, 3, 10, steps]))
                if turn == 2:
                    source.forget(moments[1][0])
                    del moments[0]
                for since, before, start in choice.sample(moments, len(moments)):
                    changes = source.changes(since)
                    if names := missed(before, snapshot(root), changes):
                        wrong.append(f"seed {seed}: {names[:4]} after {history.log[start:]}")
                for target, other in zip(tree.targets, others, strict=True):
                    if other and choice.random() < 0.3:
                        _clear(target, other)
        finally:
            history.close()
    return wrong


def _clear(target: Target, consumer: str) -> None:
    if target.newest:
        Library(library()).clear(target.name, consumer, target.newest)
