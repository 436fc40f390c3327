"""Lustre changelogs as a change source: from the log's places to paths as they are now.

Covers: positions, looking changes up, every reason why they cannot be known.
Does not cover: reading one changelog (changelog), why the log's places are enough (looks).

Records of all metadata targets go into one set of places. Between two targets their order could
only be told by time; with a set it does not matter (looks), so nothing is merged.

Nothing runs between backups: each call reads what has come meanwhile, makes it durable in the log,
and only then clears it on the metadata targets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from filesystems.lustre.api import LIBRARY, Library
from filesystems.lustre.changelog import Changelog, Cursor, Drained
from filesystems.lustre.errors import ConsumerGone, RolledBack
from filesystems.lustre.fid import Fid
from filesystems.lustre.kernel.native import Places, Row
from filesystems.lustre.log import ChangeLog, locked
from filesystems.lustre.looks import Kind
from filesystems.lustre.resolve import Resolver, inside
from filesystems.lustre.settings import LustreChangelogs
from shards.changes import CHANGES_MAX, ChangeSet, Gap, Position, without_covered
from shards.errors import ForebayError
from shards.snapshot import Snapshot

# Of places that are not in the log yet, in memory: about a million. Each is written once.
GATHERED_BYTES_MAX = 96 << 20


class LustreSource:
    """Reads the changelogs of all metadata targets for one dataset."""

    name: ClassVar[str] = "lustre"

    def __init__(
        self,
        dataset: str,
        settings: LustreChangelogs,
        folder: Path,
        library: str = LIBRARY,
        devices: Path = Path("/dev"),
    ) -> None:
        self._dataset = dataset
        self._settings = settings
        self._folder = folder
        self._library = library
        self._devices = devices

    def position(self) -> Position:
        """Return where the log stands; all that was recorded before this call is in it.

        The root is resolved once, so that whoever sets changelogs up learns here what looking
        changes up would fail with.
        """
        with self._opened() as opened:
            with Resolver(opened.library, self._settings.mount) as resolver:
                opened.root_path(resolver)
            opened.drain()
            return Position(self.name, opened.session, opened.log.arrive())

    def forget(self, before: Position) -> None:
        """Drop what no position from this one on needs."""
        with self._opened() as opened:
            if (before.source, before.session) == (self.name, opened.session):
                opened.log.forget(before.sequence)

    def changes(self, since: Position, snapshot: Snapshot | None = None) -> ChangeSet:
        """Return where to look for what was done after a position.

        Other names of an inode: `inodes` has those that no path inside the root was found of, and
        those with several names, of which Lustre may not know all.
        """
        if since.source != self.name:
            raise Gap(f"the last position is one of {since.source}, not of {self.name}")
        with self._opened() as opened:
            if since.session != opened.session:
                raise Gap(
                    "the last position is of other changelogs, consumers or another change log"
                    f" than {self._settings.identity()} in {self._folder} now"
                )
            newest = opened.log.sequence
            if not 0 <= since.sequence <= newest:
                raise Gap(
                    f"the last position is {since.sequence}, but the change log is at {newest}"
                )
            opened.drain()
            oldest, reason = opened.log.oldest
            if since.sequence < oldest:
                raise Gap(reason)
            return opened.look_up(since.sequence)

    @contextmanager
    def _opened(self) -> Iterator[_Opened]:
        """Hold the log. Whatever ends this early is a gap: what changed is not known."""
        try:
            with locked(self._folder):
                library = Library(self._library)
                root = self._check_root(library)
                identity = f"{self._settings.identity()} {root}"
                with ChangeLog(self._folder, identity) as log:
                    yield _Opened(self._settings, library, root, log)
        except Gap:
            raise
        except ForebayError as error:
            raise Gap(str(error)) from error
        except OSError as error:
            raise Gap(f"changes cannot be looked up: {error}") from error

    def _check_root(self, library: Library) -> Fid:
        settings = self._settings
        root = library.path_to_fid(settings.root)
        number = os.stat(settings.root).st_ino
        if number != root.inode_number():
            raise Gap(
                f"{os.fsdecode(settings.root)} has inode number {number}, and not the"
                f" {root.inode_number()} of {root}: is it mounted with 32bitapi?"
            )
        self._check_targets()
        return root

    def _check_targets(self) -> None:
        """Compare the named targets with the client's devices, of which each target has one.

        Where there is none at all, opening a changelog tells.
        """
        prefix = f"changelog-{self._settings.filesystem}-MDT"
        found = {path.name.partition("-")[2] for path in self._devices.glob(f"{prefix}*")}
        named = {target for target, _ in self._settings.consumers}
        if not found or found == named:
            return
        if unnamed := sorted(found - named):
            raise Gap(
                f"the dataset names no consumer on {', '.join(unnamed)}: register one there"
                " (`lctl --device MDT changelog_register`) and name every target"
            )
        raise Gap(
            f"the dataset names {', '.join(sorted(named - found))}, but {self._devices} has no"
            " changelog device of that: does this client see that metadata target?"
        )


@dataclass(slots=True)
class _Opened:
    """A log that is held, and what it is about."""

    settings: LustreChangelogs
    library: Library
    root: Fid
    log: ChangeLog

    @property
    def session(self) -> str:
        return f"{self.settings.identity()} {self.log.session}"

    def drain(self) -> None:
        """Take in all that is recorded, make it durable, then let go of it there."""
        for target, consumer in self.settings.consumers:
            changelog = Changelog(self.library, target, consumer)
            cursor = self.log.cursor(target)
            with closing(changelog.drain(cursor)) as parts:
                cursor = self._take_all(target, cursor, parts)
            try:
                cursor = changelog.clear(cursor)
            except (ConsumerGone, RolledBack) as error:
                self.log.lose(str(error), target, Cursor())
                raise
            self.log.keep(target, cursor)

    def _take_all(self, target: str, cursor: Cursor, parts: Iterable[Drained]) -> Cursor:
        """Put batches into the log, many at a time; those before an error too."""
        durable, places = cursor, Places()
        try:
            for drained in parts:
                places.add(drained.records)
                lost = drained.lost
                if places.was_off:
                    lost = f"the changelog of {target} was off for a time"
                if lost:
                    self.log.lose(lost)
                cursor = drained.cursor  # not behind a gap that the log does not know of
                if lost or places.memory_bytes > GATHERED_BYTES_MAX:
                    full, places, durable = places, Places(), cursor
                    self.log.add(full, target, cursor)
        finally:
            if cursor != durable:
                self.log.add(places, target, cursor)
        return cursor

    def root_path(self, resolver: Resolver) -> bytes:
        path = resolver.directory(self.root.to_bytes())
        if path is None:
            raise Gap(f"{os.fsdecode(self.settings.root)} was removed")
        return path

    def look_up(self, since: int) -> ChangeSet:
        places = self.log.places(since)
        if len(places) > CHANGES_MAX:
            raise _too_many()
        with Resolver(self.library, self.settings.mount) as resolver:
            root_path = self.root_path(resolver)
            found = _Found(root_path)
            found.take(resolver, list(places))
            # A path is inside if it begins with the root's: they must not have moved apart.
            if resolver.directory(self.root.to_bytes()) != root_path:
                raise Gap(
                    f"{os.fsdecode(self.settings.root)} was moved while changes were looked up"
                )
        names, subtrees = without_covered(found.names, found.subtrees)
        return ChangeSet(names, subtrees, sorted(found.numbers))


@dataclass(slots=True)
class _Found:
    """What has been found so far."""

    root_path: bytes
    names: set[bytes] = field(default_factory=set)
    subtrees: set[bytes] = field(default_factory=set)
    numbers: set[int] = field(default_factory=set)

    def take(self, resolver: Resolver, looks: list[Row]) -> None:
        inodes = [look.fid for look in looks if look.kind == Kind.INODE]
        for fid, paths in resolver.names(inodes):
            self._take_inode(fid, paths)
        plain = resolver.plain({look.about for look in looks if look.about})
        places = [look for look in looks if look.kind != Kind.INODE and not _is_file(look, plain)]
        by_fid: dict[bytes, list[Row]] = {}
        for look in places:
            by_fid.setdefault(look.fid, []).append(look)
        for fid, path in resolver.directories(by_fid):
            # Gone, or outside: what was below its old path is a TREE of its parent.
            directory = None if path is None else inside(path, self.root_path)
            if directory is None:
                continue
            for look in by_fid[fid]:
                self._take_place(directory, look, plain)

    def _take_inode(self, fid: bytes, paths: list[bytes]) -> None:
        here = [
            path for path in (inside(path, self.root_path) for path in paths) if path is not None
        ]
        self.names.update(here)
        # Room for the names of links is bounded in Lustre, so even no path may be one too few.
        if len(paths) != 1 or not here:
            self.numbers.add(Fid.from_bytes(fid).inode_number())
        self._check_bound()

    def _take_place(self, directory: bytes, look: Row, plain: set[bytes]) -> None:
        full = os.path.join(directory, look.name) if look.name else directory
        self.names.add(directory)
        if look.kind == Kind.TREE and look.about not in plain:
            self.subtrees.add(full)
        else:
            self.names.add(full)
        self._check_bound()

    def _check_bound(self) -> None:
        if len(self.names) + len(self.subtrees) + len(self.numbers) > CHANGES_MAX:
            raise _too_many()


def _is_file(look: Row, plain: set[bytes]) -> bool:
    """Tell whether it is a look below something that has nothing below it."""
    return look.fid == look.about and look.fid in plain


def _too_many() -> Gap:
    return Gap(f"more than {CHANGES_MAX:,} names changed: a scan costs less")
