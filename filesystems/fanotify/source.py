"""fanotify as a change source: from the log's places to paths as they are now.

Covers: positions, looking changes up, every reason why they cannot be known.
Does not cover: taking events in (reader), why the log's places are enough (looks).
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, ClassVar

from filesystems.fanotify.asking import ask
from filesystems.fanotify.log import LoggedLook, LogReader
from filesystems.fanotify.looks import Kind
from filesystems.fanotify.tree import OpenDirectory, RootIdentity, Tree, inode_of, leads_to
from shards.changes import CHANGES_MAX, ChangeSet, Gap, Position, without_covered
from shards.errors import ForebayError
from shards.snapshot import Snapshot


class FanotifySource:
    """Asks the reader of a dataset, and reads its log."""

    name: ClassVar[str] = "fanotify"

    def __init__(self, dataset: str, root: bytes, folder: Path) -> None:
        self._dataset = dataset
        self._root = root
        self._folder = folder

    def position(self) -> Position:
        """Return where the reader stands; all that was done before this call is in its log."""
        answer = self._ask("position")
        return Position(self.name, answer["session"], answer["sequence"])

    def forget(self, before: Position) -> None:
        """Let the reader drop what no position from this one on needs."""
        question = {"ask": "forget", "session": before.session, "sequence": before.sequence}
        ask(self._folder, question)

    def changes(self, since: Position, snapshot: Snapshot | None = None) -> ChangeSet:
        """Return where to look for what was done after a position.

        Other names of an inode: `inodes` has those that no reported name leads to. Where one does,
        whoever looks at it sees st_nlink.
        """
        if since.source != self.name:
            raise Gap(f"the last position is one of {since.source}, not of {self.name}")
        answer = self._ask("changes")
        if since.session != answer["session"]:
            raise Gap("the change reader was restarted since: what happened between is not known")
        if not 0 <= since.sequence <= answer["sequence"]:
            raise Gap(
                f"the last position is {since.sequence}, but the change reader is at"
                f" {answer['sequence']}"
            )
        try:
            with LogReader(self._folder, self._dataset, since.session, answer["sequence"]) as log:
                return self._look_up(log, since)
        except OSError as error:
            raise Gap(f"changes cannot be looked up: {error}") from error

    def _ask(self, what: str) -> dict[str, Any]:
        answer = ask(self._folder, {"ask": what})
        if answer["dataset"] != self._dataset:
            raise Gap(f"the change reader is one of dataset {answer['dataset']}")
        try:
            with Tree(self._root) as tree:
                identity = tree.identity().to_json()
        except (OSError, ForebayError) as error:
            raise Gap(f"the root cannot be seen: {error}") from error
        if identity != answer["identity"]:
            raise Gap(
                f"the change reader watches {answer['root']}, which is another directory than"
                f" {os.fsdecode(self._root)} here"
            )
        return answer

    def _look_up(self, log: LogReader, since: Position) -> ChangeSet:
        if since.sequence < log.head.oldest:
            raise Gap(log.head.oldest_reason)
        with Tree(self._root) as tree:
            root_path = tree.path()
            found = _Found(tree, root_path, tree.identity())
            found.take_inodes(log.inodes(since.sequence))
            for handle, looks in groupby(log.places(since.sequence), lambda look: look.handle):
                found.take_directory(handle, looks)
            found.subtrees.update(log.mounts(since.sequence))
            inodes = found.inode_numbers()
            # A directory is inside if its path begins with the root's: they must not have moved
            # apart while paths were taken.
            if tree.path() != root_path:
                raise Gap(f"{os.fsdecode(root_path)} was moved while changes were looked up")
        inodes.update(log.unclosed())
        names, subtrees = without_covered(found.names, found.subtrees)
        return ChangeSet(names, subtrees, sorted(inodes))


@dataclass(slots=True)
class _Found:
    """What has been found so far."""

    tree: Tree
    root_path: bytes
    identity: RootIdentity
    names: set[bytes] = field(default_factory=set)
    subtrees: set[bytes] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)
    inodes: set[bytes] = field(default_factory=set)  # handles no reported name leads to, so far

    def take_inodes(self, handles: Iterable[bytes]) -> None:
        can_tell = inode_of(self.identity.handle) == self.identity.inode
        for handle in handles:
            number = inode_of(handle) if can_tell else None
            if number is None:
                self.inodes.add(handle)
            else:
                self.numbers.add(number)
            self._check_bound()

    def take_directory(self, handle: bytes, looks: Iterable[LoggedLook]) -> None:
        """Take the looks in one directory; where it is is asked once."""
        with self.tree.directory(handle, self.root_path) as directory:
            if directory is None or directory.path is None:
                return  # gone or outside: what was below its old path is a TREE of its parent
            for name, kinds in groupby(looks, lambda look: look.name):
                self._take_name(directory, name, {look.kind for look in kinds})

    def _take_name(self, directory: OpenDirectory, name: bytes, kinds: set[Kind]) -> None:
        path = directory.path
        assert path is not None
        full = os.path.join(path, name) if name else path
        if kinds & {Kind.ENTRY, Kind.TREE}:
            self.names.add(path)
        if Kind.TREE in kinds:
            self.subtrees.add(full)
        else:
            self.names.add(full)
        self._check_bound()
        if name and self.inodes and kinds != {Kind.TREE}:
            reached = leads_to(directory.descriptor, name)
            if reached is not None:
                self.inodes.discard(reached)

    def inode_numbers(self) -> set[int]:
        """Return the numbers of those inodes that exist and that no reported name leads to."""
        numbers = set(self.numbers)
        for handle in self.inodes:
            found = self.tree.inode(handle)
            if found is not None and found[1] > 0:
                numbers.add(found[0])
        return numbers

    def _check_bound(self) -> None:
        count = len(self.names) + len(self.subtrees) + len(self.inodes) + len(self.numbers)
        if count > CHANGES_MAX:
            raise Gap(f"more than {CHANGES_MAX:,} names changed: a scan costs less")
