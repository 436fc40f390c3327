"""What an adapter with several metadata targets must do; its test module subclasses TargetsSuite.

Covers: every name once, from the walker of its directory; directories that no walker expected.
Does not cover: rows (filesystem_suite), who takes which lease (test_lease_loop).
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest

from filesystems.interface import Filesystem, WalkOptions
from shards.lease import PendingDirectory
from tests.conformance.filesystem_suite import ROOT, SEED, SHARDS
from tests.conformance.walk_trees import make_wide, write

# Nested ones too: back to the target above, and to another one.
PLACED = {b"directory1": 1, b"directory1/inner": 0, b"directory3": 1, b"directory3/in/ner": 1}


class TargetsSuite:
    """Subclass it, say how to make a tree and to place its directories; pytest runs it all."""

    def placed(self, root: Path, targets: Mapping[bytes, int]) -> Filesystem:
        """Place directories, with all below them, on targets; return the adapter."""
        raise NotImplementedError

    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return tmp_path

    @pytest.fixture
    def tree(self, root: Path) -> Path:
        make_wide(root, 5, 3)
        for place in ("directory1/inner/most", "directory3/in/ner"):
            (root / place).mkdir(parents=True)
            write(root / place / "file")
        return root

    def walk(self, filesystem: Filesystem, **changes) -> dict[bytes, list[int]]:
        """Walk target by target, as walkers do; return whose walks gave which names."""
        found: dict[bytes, list[int]] = defaultdict(list)
        pending, include_root = {0: [ROOT]}, True
        while pending:
            target, directories = pending.popitem()
            options = WalkOptions(shards=SHARDS, seed=SEED, threads=2, **changes)
            with filesystem.walk(directories, options, include_root) as walk:
                for batch in walk:
                    columns = (batch.batch.column(name).to_pylist() for name in ("path", "target"))
                    for path, of in zip(*columns, strict=True):
                        assert of == target
                        found[path].append(of)
                for directory in walk.frontier:
                    pending.setdefault(directory.target, []).append(directory)
            include_root = False
        return dict(found)

    def names(self, root: Path) -> set[bytes]:
        base = os.fsencode(root)
        return {b""} | {
            os.path.relpath(os.path.join(folder, name), base)
            for folder, folders, files in os.walk(base)
            for name in folders + files
        }

    @pytest.mark.parametrize("budget_rows", [0, 3])
    def test_every_name_comes_once_from_the_walker_of_its_directory(self, tree, budget_rows):
        filesystem = self.placed(tree, PLACED)
        assert [target.index for target in filesystem.targets()] == [0, 1]
        assert len({target.name for target in filesystem.targets()}) == 2
        found = self.walk(filesystem, budget_rows=budget_rows)
        assert set(found) == self.names(tree)
        for path, targets in found.items():
            expected = filesystem.target_of(os.path.dirname(path)) if path else 0
            assert targets == [expected], path
        for path, target in PLACED.items():
            assert filesystem.target_of(path) == target

    def test_what_is_placed_later_is_walked_all_the_same(self, tree):
        filesystem = self.placed(tree, PLACED)
        filesystem.targets()
        (tree / "directory2" / "new").mkdir()
        write(tree / "directory2" / "new" / "file")
        again = self.placed(tree, {b"directory2/new": 1})
        assert self.walk(filesystem)[b"directory2/new/file"] == [0]
        assert self.walk(again)[b"directory2/new/file"] == [1]
        # A walker may be given what another one knows the place of, and knows it not itself.
        with filesystem.walk(
            [PendingDirectory(b"directory2/new", target=1)],
            WalkOptions(shards=1, seed=0, threads=1),
        ) as walk:
            assert [row for batch in walk for row in batch.batch.column("path").to_pylist()] == [
                b"directory2/new/file"
            ]

    def test_a_walk_that_hands_nothing_over_gives_all(self, tree):
        filesystem = self.placed(tree, PLACED)
        assert set(self.walk(filesystem, hands_over=False)) == self.names(tree)
        assert {tuple(of) for of in self.walk(filesystem, hands_over=False).values()} == {(0,)}

    def test_directories_that_are_gone_have_no_target(self, tree):
        with pytest.raises(FileNotFoundError):
            self.placed(tree, {}).target_of(b"directory1/gone")
