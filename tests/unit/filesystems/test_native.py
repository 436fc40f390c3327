"""The binding of the walker kernel: golden values, schema, options, errors."""

from __future__ import annotations

import errno
import pickle
import re
from pathlib import Path

import pytest

from filesystems.errors import (
    RootMissing,
    RootNotADirectory,
    RootUnreadable,
    WalkCancelled,
    WalkFailed,
    for_root,
    for_walk,
)
from filesystems.interface import THREADS_AUTOMATIC, WalkOptions
from filesystems.kernel.native import NativeWalk, kernel_schema, mix64
from filesystems.names import look_at_names
from filesystems.posix import PosixFilesystem
from shards import shard_function
from shards.errors import UsageError
from shards.lease import PendingDirectory
from shards.schema import INODE_SCHEMA, SCHEMA_VERSION

FORMATS = Path(__file__).resolve().parents[3] / "docs" / "formats"
GOLDEN_ROW = re.compile(r"^\| (\d+) \| (\d+) \| 0x([0-9A-F]{16}) \|", re.MULTILINE)


def test_mix64_in_c_gives_the_published_values():
    golden = GOLDEN_ROW.findall((FORMATS / "shard-function.md").read_text())
    assert len(golden) >= 8
    for ino, seed, expected in golden:
        assert mix64(int(ino), int(seed)) == int(expected, 16)


def test_mix64_in_c_agrees_with_the_one_in_python():
    for i in range(2000):
        ino, seed = (i * 0x9E3779B97F4A7C15) % (1 << 64), (i * i * 0xD1342543DE82EF95) % (1 << 64)
        assert mix64(ino, seed) == shard_function.mix64(ino, seed)


def test_the_kernel_fills_the_inode_schema_of_this_version():
    assert kernel_schema().equals(INODE_SCHEMA)
    assert kernel_schema().metadata == {b"forebay.schema": str(SCHEMA_VERSION).encode()}


@pytest.mark.parametrize(
    "changes",
    [
        {"shards": 0},
        {"shards": 1025},
        {"seed": -1},
        {"seed": 1 << 64},
        {"threads": -1},
        {"threads": 257},
        {"threads_start": 257},
        {"latency_target_us": -1},
        {"latency_target_us": 2_000_001},
        {"batch_rows": 0},
        {"budget_rows": -1},
        {"descriptors_max": 7},
    ],
)
def test_options_out_of_range_are_refused_with_the_accepted_values(changes):
    with pytest.raises(UsageError, match=r"give a number from \d+ to \d+"):
        WalkOptions(**({"shards": 1, "seed": 0} | changes))


def test_a_latency_target_with_a_fixed_number_of_threads_is_refused():
    with pytest.raises(UsageError, match=r"needs threads = 0"):
        WalkOptions(shards=1, seed=0, threads=4, latency_target_us=1000)


def test_automatic_threads_begin_with_few_and_stay_few_on_a_small_tree(tmp_path):
    options = WalkOptions(shards=1, seed=0, threads=THREADS_AUTOMATIC)
    with NativeWalk(bytes(tmp_path), [PendingDirectory(b"")], options, include_root=True) as walk:
        assert sum(batch.batch.num_rows for batch in walk) == 1
        assert 1 <= walk.stats.threads == walk.stats.threads_high <= 8
        assert walk.stats.backoffs == 0


def test_a_walk_begins_with_the_threads_it_is_told_to(tmp_path):
    options = WalkOptions(shards=1, seed=0, threads=THREADS_AUTOMATIC, threads_start=40)
    with NativeWalk(bytes(tmp_path), [], options) as walk:
        assert walk.stats.threads_active == 40


def test_a_root_with_a_nul_byte_does_not_name_what_comes_before_it(tmp_path):
    with pytest.raises(RootMissing):
        NativeWalk(bytes(tmp_path) + b"\0x", [], WalkOptions(shards=1, seed=0))


def test_a_walk_of_nothing_ends_at_once(tmp_path):
    with NativeWalk(bytes(tmp_path), [], WalkOptions(shards=1, seed=0)) as walk:
        assert list(walk) == []
        assert walk.frontier == []


def test_the_largest_seed_and_batch_are_accepted(tmp_path):
    options = WalkOptions(shards=1024, seed=(1 << 64) - 1, threads=256, batch_rows=1 << 20)
    with NativeWalk(bytes(tmp_path), [], options, target=65_535, include_root=True) as walk:
        batch = next(walk)
    assert batch.batch.column("target").to_pylist() == [65_535]
    assert len(batch.counts) == 1024


def test_a_relative_root_stays_the_one_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert PosixFilesystem("inner").root == bytes(tmp_path / "inner")


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.ENOENT, RootMissing),
        (errno.ENOTDIR, RootNotADirectory),
        (errno.EACCES, RootUnreadable),
        (errno.EMFILE, WalkFailed),
    ],
)
def test_errors_of_the_root_name_it_and_survive_pickling(code, kind):
    error = for_root(b"/some/root", code)
    assert type(error) is kind
    assert "/some/root" in str(error)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_a_cancelled_walk_is_told_apart_from_a_broken_one():
    assert isinstance(for_walk(b"/r", errno.ECANCELED), WalkCancelled)
    assert "more memory" in str(for_walk(b"/r", errno.ENOMEM))


def test_inode_numbers_of_a_snapshot_become_the_live_ones(tmp_path):
    """ceph-fuse shows a snapshot's number in the upper bits; shards go by the live number."""
    (tmp_path / "d").mkdir()
    for name in ("d/file", "file"):
        (tmp_path / name).touch()
    mask = 0xFF
    options = WalkOptions(shards=7, seed=3, threads=1, inode_mask=mask)
    with NativeWalk(bytes(tmp_path), [PendingDirectory(b"")], options, include_root=True) as walk:
        rows = [row for batch in walk for row in batch.batch.to_pylist()]
    named = next(look_at_names(bytes(tmp_path), [b"d/file"], options)).batch.to_pylist()
    assert len(rows) == 4
    for row in rows + named:
        path = tmp_path / row["path"].decode()
        assert row["ino"] == path.stat().st_ino & mask
        assert row["shard"] == shard_function.mix64(row["ino"], 3) % 7
        if row["path"]:
            assert row["parent"] == path.parent.stat().st_ino & mask
