"""What every change source must do; a source's test module subclasses ChangesSuite.

Covers: each kind of change on its own, positions, gaps.
Does not cover: random histories (each source has its own), what only one source can meet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from shards.changes import ChangeSet, ChangeSource, Gap
from tests.support.change_histories import Entry, missed, snapshot

Snapshot = dict[bytes, Entry]


@dataclass
class Site:
    """A root on the source's filesystem, a directory beside it, and what changes both."""

    root: bytes
    outside: bytes
    source: ChangeSource
    tree: Any  # PlainTree, or one with its methods
    covering: Callable[[ChangeSet, Snapshot], ChangeSet] = lambda changes, before: changes
    sees: Callable[[bytes], Snapshot] = snapshot


# Name, and what it does to the tree that ChangesSuite.prepare() made; all of them at once too.
CHANGES: dict[str, Callable[[Any, bytes, bytes], None]] = {
    "create": lambda tree, root, _: tree.create(root + b"/new \xff\n", b"data"),
    "write": lambda tree, root, _: tree.write(root + b"/a/written", b"more"),
    "truncate": lambda tree, root, _: tree.truncate(root + b"/a/cut", 1),
    "chmod": lambda tree, root, _: tree.chmod(root + b"/a/mode", 0o600),
    "chmod of a directory": lambda tree, root, _: tree.chmod(root + b"/b", 0o700),
    "xattr": lambda tree, root, _: tree.set_attribute(root + b"/a/attribute", b"user.a", b"1"),
    "times": lambda tree, root, _: tree.set_times(root + b"/a/times", 1_000_000_000),
    "link": lambda tree, root, _: tree.link(root + b"/a/linked", root + b"/b/second"),
    "unlink of one of two names": lambda tree, root, _: tree.unlink(root + b"/a/twice-1"),
    "unlink": lambda tree, root, _: tree.unlink(root + b"/a/gone"),
    "symlink": lambda tree, root, _: tree.symlink(b"nowhere", root + b"/b/symlink"),
    "fifo": lambda tree, root, _: tree.fifo(root + b"/b/fifo"),
    "mkdir": lambda tree, root, _: tree.mkdir(root + b"/b/made"),
    "rmdir": lambda tree, root, _: tree.rmdir(root + b"/empty"),
    "rename": lambda tree, root, _: tree.rename(root + b"/a/old", root + b"/b/renamed"),
    "rename over another": lambda tree, root, _: tree.rename(
        root + b"/a/over", root + b"/a/covered"
    ),
    "rename of a directory": lambda tree, root, _: tree.rename(root + b"/dir", root + b"/b/dir"),
    "a directory moved in": lambda tree, root, outside: tree.rename(
        outside + b"/in", root + b"/b/in"
    ),
    "a directory moved out": lambda tree, root, outside: tree.rename(
        root + b"/out", outside + b"/out"
    ),
    "a tree removed": lambda tree, root, _: tree.remove_tree(root + b"/tree"),
}


class ChangesSuite:
    """Subclass it, say how to make a site, and pytest runs it all."""

    def open_site(self, base: Any) -> AbstractContextManager[Site]:
        raise NotImplementedError

    @pytest.fixture
    def site(self, tmp_path) -> Iterator[Site]:
        with self.open_site(tmp_path) as site:
            self.prepare(site)
            yield site

    def prepare(self, site: Site) -> None:
        tree, root = site.tree, site.root
        for name in (b"a", b"b", b"empty", b"dir", b"dir/deep", b"out", b"tree", b"tree/deep"):
            tree.mkdir(root + b"/" + name)
        files = b"written cut mode attribute times linked twice-1 gone old over covered kept"
        for name in files.split(b" "):
            tree.create(root + b"/a/" + name, b"some data")
        tree.link(root + b"/a/twice-1", root + b"/b/twice-2")
        for name in (b"dir/deep/file", b"out/file", b"tree/deep/file", b"tree/file"):
            tree.create(root + b"/" + name, b"x")
        tree.mkdir(site.outside + b"/in")
        tree.mkdir(site.outside + b"/in/deep")
        tree.create(site.outside + b"/in/deep/file", b"x")

    def look(self, site: Site, since, before: Snapshot) -> ChangeSet:
        """Return what is to be looked at; it must cover all that differs."""
        changes = site.covering(site.source.changes(since), before)
        after = site.sees(site.root)
        assert after != before
        assert missed(before, after, changes) == []
        assert b"" not in changes.subtrees
        return changes

    @pytest.mark.parametrize("kind", CHANGES)
    def test_a_change_is_covered(self, site, kind):
        since, before = site.source.position(), site.sees(site.root)
        CHANGES[kind](site.tree, site.root, site.outside)
        changes = self.look(site, since, before)
        assert b"a/kept" not in changes.names
        assert len(changes.names) < 6

    def test_all_changes_at_once_are_covered_and_again_from_a_later_position(self, site):
        since, before = site.source.position(), site.sees(site.root)
        for change in CHANGES.values():
            change(site.tree, site.root, site.outside)
        later, between = site.source.position(), site.sees(site.root)
        site.tree.write(site.root + b"/b/in/deep/file", b"changed where it is now")
        site.tree.rename(site.root + b"/b/renamed", site.root + b"/a/old")
        self.look(site, since, before)
        self.look(site, later, between)

    def test_positions_of_others_are_gaps(self, site):
        position = site.source.position()
        for strange in (
            replace(position, source="another"),
            replace(position, session=position.session + "x"),
            replace(position, sequence=position.sequence + (1 << 62)),
        ):
            with pytest.raises(Gap) as gap:
                site.source.changes(strange)
            assert str(gap.value)

    def test_a_root_that_is_gone_is_a_gap_or_all_of_it(self, site):
        since = site.source.position()
        os.rename(site.root, site.root + b"-away")
        try:
            with pytest.raises(Gap):
                site.source.changes(since)
        finally:
            os.rename(site.root + b"-away", site.root)
