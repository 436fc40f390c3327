"""The large trees of the benchmarks have the shape and the number of inodes that they claim."""

import os

import pytest

from tests.support.bulk import (
    make_chains,
    make_flat,
    make_lopsided,
    make_uniform,
    remove_tree,
)


def shape_of(root):
    """Return inodes, greatest depth of a directory, and inodes by name below the root."""
    inodes, deepest, below = 1, 0, {}
    for folder, directories, files in os.walk(root):
        inodes += len(directories) + len(files)
        parts = os.path.relpath(folder, root).split(os.sep) if folder != str(root) else []
        deepest = max(deepest, len(parts))
        if parts:
            below[parts[0]] = below.get(parts[0], 1) + len(directories) + len(files)
    return inodes, deepest, below


@pytest.mark.parametrize("size_bytes", [0, 10])
def test_a_uniform_tree_and_a_flat_one(tmp_path, size_bytes):
    assert make_uniform(tmp_path / "u", 250, 10, size_bytes) == shape_of(tmp_path / "u")[0]
    assert make_flat(tmp_path / "f", 25, size_bytes) == 26 == shape_of(tmp_path / "f")[0]
    file = tmp_path / "f" / "f00000024"
    assert file.is_file()
    assert file.stat().st_size == size_bytes


def test_chains_are_as_deep_as_asked(tmp_path):
    inodes = make_chains(tmp_path / "c", 3, 40, 2)
    assert shape_of(tmp_path / "c")[:2] == (inodes, 40)
    assert inodes == 1 + 3 * 40 * 3
    remove_tree(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_nine_tenths_of_a_lopsided_tree_are_below_one_directory(tmp_path):
    inodes = make_lopsided(tmp_path / "l", 2000, 10)
    seen, _, below = shape_of(tmp_path / "l")
    assert seen == inodes
    assert len(below) == 10
    assert max(below.values()) / inodes == pytest.approx(0.9, abs=0.01)
