"""What every filesystem adapter must do; an adapter's test module subclasses FilesystemSuite.

Covers: rows, order, budgets and frontiers, bounds, errors, cancellation of Filesystem.walk.
Does not cover: what only some filesystems have (fid, layouts, changelogs).
"""

from __future__ import annotations

import dataclasses
import errno
import itertools
import os
import resource
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from filesystems.errors import RootMissing, RootNotADirectory, WalkCancelled
from filesystems.interface import Filesystem, Walk, WalkBatch, WalkOptions
from shards.lease import PendingDirectory
from shards.schema import INODE_SCHEMA, RowClass, RowFlag
from shards.shard_function import mix64
from tests.conformance import walk_reference
from tests.conformance.walk_isolated import in_child, mount_tmpfs, needs_root
from tests.conformance.walk_trees import make_chain, make_flat, make_odd_tree, make_wide, write

ROOT = PendingDirectory(b"")
SEED = 0xDEADBEEFCAFEF00D
SHARDS = 5
DEADLINE_S = 30


def options(**changes) -> WalkOptions:
    return WalkOptions(**({"shards": SHARDS, "seed": SEED, "threads": 4} | changes))


def tuples(batch: WalkBatch) -> list[tuple]:
    columns = [batch.batch.column(name).to_pylist() for name in walk_reference.COLUMNS]
    return list(zip(*columns, strict=True))


def by_path(rows: list[tuple]) -> list[tuple]:
    return sorted(rows, key=lambda row: row[0])


def named(row: tuple) -> dict:
    return dict(zip(walk_reference.COLUMNS, row, strict=True))


def errors_of(rows: list[tuple]) -> dict[bytes, tuple[int, int]]:
    """Path to (error, flags) of the rows that have an error."""
    found = [named(row) for row in rows]
    return {row["path"]: (row["error"], row["flags"]) for row in found if row["error"]}


def wait_for(condition, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited {DEADLINE_S} s for {what}"
        os.sched_yield()


class FilesystemSuite:
    """Subclass it, say how to make the adapter, and pytest runs it all."""

    huge = 30_000  # names in one directory
    attributes_come_with_names = False  # else they are asked for one by one, later

    def adapter(self, root: Path) -> Filesystem:
        raise NotImplementedError

    @pytest.fixture
    def root(self) -> Iterator[Path]:
        # Not tmp_path: its parents are closed to other users, and nothing but rm can remove
        # paths past PATH_MAX.
        folder = Path(tempfile.mkdtemp(prefix="forebay-walk-"))
        folder.chmod(0o755)
        yield folder
        subprocess.run(["rm", "-rf", "--", folder], check=True)

    def open_descriptors(self) -> int:
        return len(os.listdir("/proc/self/fd"))

    def cookie_device(self, device: int) -> int:
        """Return how the frontier names a device beside a cookie."""
        return device

    def walk_all(self, root: Path, include_root: bool = True, **changes) -> tuple[list, Walk]:
        rows = []
        starts = [ROOT]
        with self.adapter(root).walk(starts, options(**changes), include_root) as walk:
            for batch in walk:
                rows += tuples(batch)
        assert walk.frontier == []
        return rows, walk

    def walk_in_steps(self, root: Path, budget_rows: int, **changes) -> tuple[list, int]:
        rows, steps = [], 0
        frontier, include_root = [ROOT], True
        while frontier:
            chosen = options(budget_rows=budget_rows, **changes)
            with self.adapter(root).walk(frontier, chosen, include_root) as walk:
                for batch in walk:
                    rows += tuples(batch)
                frontier, include_root = walk.frontier, False
            steps += 1
        return rows, steps

    # Rows

    @pytest.mark.parametrize("threads", [1, 8])
    def test_every_column_is_what_lstat_says(self, root, threads):
        make_odd_tree(root)
        walk_reference.rows(root, SHARDS, SEED)  # now the access times have settled
        before = walk_reference.rows(root, SHARDS, SEED)
        rows, walk = self.walk_all(root, threads=threads)
        assert by_path(rows) == before
        assert walk_reference.rows(root, SHARDS, SEED) == before
        assert walk.stats.entries == len(before)
        assert walk.stats.errors == 0
        assert walk.stats.directories == sum(stat.S_ISDIR(row[4]) for row in before)
        assert walk.stats.bytes == sum(row[9] for row in before if stat.S_ISREG(row[4]))

    def test_listing_leaves_the_access_times_of_directories_alone(self, root):
        (root / "directory").mkdir()
        write(root / "directory" / "file")
        for folder in (root / "directory", root):
            os.utime(folder, ns=(1, os.lstat(folder).st_mtime_ns))
        self.walk_all(root)
        assert os.lstat(root).st_atime_ns == 1
        assert os.lstat(root / "directory").st_atime_ns == 1

    def test_batches_have_the_inode_schema_and_outlive_the_walk(self, root):
        make_wide(root, 20, 20)
        with self.adapter(root).walk([ROOT], options(batch_rows=50), True) as walk:
            batches = list(walk)
        for batch in batches:
            assert batch.batch.schema.equals(INODE_SCHEMA)
            assert batch.batch.schema.metadata == {b"forebay.schema": b"1"}
            batch.batch.validate(full=True)
        column = batches[0].batch.column("path")
        del batches
        assert len(b"".join(column.to_pylist())) > 0

    def test_the_row_of_the_root_comes_only_when_asked_for(self, root):
        write(root / "file")
        rows, _ = self.walk_all(root, include_root=False)
        assert [row[0] for row in rows] == [b"file"]

    def test_batches_are_grouped_and_ordered_and_counted(self, root):
        make_odd_tree(root)
        for i in range(500):
            os.link(root / "linked/original19", root / f"dirs/more{i}")
        with self.adapter(root).walk([ROOT], options(batch_rows=200), True) as walk:
            batches = list(walk)
        assert len(batches) > 2
        for batch in batches:
            assert 0 < batch.batch.num_rows <= 200
            assert len(batch.counts) == SHARDS
            rows = iter([named(row) for row in tuples(batch)])
            for shard, counts in enumerate(batch.counts):
                for row_class in (RowClass.PLAIN, RowClass.LINKED, RowClass.DIRECTORY):
                    group = list(itertools.islice(rows, counts[row_class]))
                    self.check_group(group, shard, row_class)
            assert next(rows, None) is None

    def check_group(self, group: list[dict], shard: int, row_class: RowClass) -> None:
        assert all(row["shard"] == shard for row in group)
        for row in group:
            directory = stat.S_ISDIR(row["mode"])
            linked = not directory and row["nlink"] > 1
            assert (directory, linked) == (row_class == 2, row_class == 1)
        if row_class == RowClass.LINKED:
            keys = [(mix64(row["ino"], SEED), row["ino"]) for row in group]
            assert keys == sorted(keys)
        if row_class == RowClass.DIRECTORY:
            depths = [row["depth"] for row in group]
            assert depths == sorted(depths, reverse=True)

    # Budgets and frontiers

    @pytest.mark.parametrize("budget_rows", [1, 7, 300])
    @pytest.mark.parametrize("threads", [1, 4])
    def test_walks_of_the_frontiers_make_up_the_whole(self, root, budget_rows, threads):
        make_odd_tree(root)
        make_wide(root, 60, 10)
        make_flat(root, 4000)  # more than one buffer
        rows, steps = self.walk_in_steps(root, budget_rows, threads=threads, batch_rows=64)
        expected = walk_reference.rows(root, SHARDS, SEED)
        assert [row[:5] for row in by_path(rows)] == [row[:5] for row in expected]
        assert steps > (1 if budget_rows == 300 else 2)

    def test_a_huge_flat_directory_is_resumed_in_its_middle(self, root):
        make_flat(root, self.huge)
        budget_rows = self.huge // 6
        with self.adapter(root).walk([ROOT], options(budget_rows=budget_rows, threads=1)) as walk:
            first = [row[0] for batch in walk for row in tuples(batch)]
            frontier = walk.frontier
        assert budget_rows <= len(first) < self.huge // 2
        assert len(frontier) == 1
        assert frontier[0].path == b""
        assert frontier[0].cookie != 0
        status = os.lstat(root)
        assert frontier[0].device == self.cookie_device(status.st_dev)
        assert frontier[0].inode == status.st_ino
        unnamed = [dataclasses.replace(frontier[0], device=0, inode=0)]
        for starts in (frontier, unnamed):
            with self.adapter(root).walk(starts, options()) as walk:
                rest = [row[0] for batch in walk for row in tuples(batch)]
            assert sorted(first + rest) == [b"file-%07d" % i for i in range(self.huge)]

    def walk_into_the_middle(self, root: Path, path: bytes) -> PendingDirectory:
        """Read one buffer of a directory of many names; return what continues it."""
        starts = [PendingDirectory(path)]
        with self.adapter(root).walk(starts, options(budget_rows=1, threads=1)) as walk:
            rows = sum(batch.batch.num_rows for batch in walk)
        (pending,) = walk.frontier
        assert rows > 0
        assert pending.path == path
        assert pending.cookie != 0
        return pending

    def test_another_directory_at_the_place_of_one_read_in_part_is_listed_whole(self, root):
        (root / "continued").mkdir()
        make_flat(root / "continued", 6000)
        pending = self.walk_into_the_middle(root, b"continued")
        (root / "continued").rename(root / "before")
        (root / "other").mkdir()
        for i in range(6000):
            write(root / "other" / f"other-{i}")
        (root / "other").rename(root / "continued")
        expected = sorted(b"continued/other-%d" % i for i in range(6000))
        with self.adapter(root).walk([pending], options()) as walk:
            rows = [row for batch in walk for row in tuples(batch)]
        assert sorted(row[0] for row in rows) == expected
        assert errors_of(rows) == {}
        # The new directory's own continuation belongs to it: again in steps, nothing comes twice.
        found, frontier = [], [pending]
        while frontier:
            with self.adapter(root).walk(frontier, options(budget_rows=1, threads=1)) as walk:
                found += [row[0] for batch in walk for row in tuples(batch)]
            frontier = walk.frontier
            assert len(found) <= len(expected)
        assert sorted(found) == expected

    def test_a_continuation_that_a_walk_did_not_come_to_is_given_back_as_it_was(self, root):
        (root / "continued").mkdir()
        make_flat(root / "continued", 6000)
        pending = self.walk_into_the_middle(root, b"continued")
        (root / "first").mkdir()
        write(root / "first" / "file")
        starts = [PendingDirectory(b"first"), pending]
        with self.adapter(root).walk(starts, options(budget_rows=1, threads=1)) as walk:
            rows = [row[0] for batch in walk for row in tuples(batch)]
        assert rows == [b"first/file"]
        assert pending in walk.frontier

    def test_one_huge_directory_is_shared_among_threads(self, root):
        make_flat(root, self.huge)
        rows, walk = self.walk_all(root, threads=8)
        assert len({row[0] for row in rows}) == len(rows) == self.huge + 1
        assert walk.stats.splits + walk.stats.steals > 0

    # Bounds

    @pytest.mark.parametrize("descriptors_max", [8, 64])
    def test_deep_trees_need_few_descriptors(self, root, descriptors_max):
        make_chain(root, 300, b"deeper", siblings=2)
        rows, walk = self.walk_all(root, descriptors_max=descriptors_max, threads=8)
        assert by_path(rows) == walk_reference.rows(root, SHARDS, SEED)
        assert walk.stats.descriptors_high <= descriptors_max

    def test_directories_closed_for_want_of_descriptors_are_opened_again(self, root):
        make_chain(root, 100, b"deeper", siblings=2)
        rows, walk = self.walk_all(root, descriptors_max=8, threads=1)
        assert len(rows) == 1 + 100 * 6
        assert walk.stats.errors == 0
        assert walk.stats.reopened > 0

    def test_running_out_of_descriptors_loses_nothing(self, root):
        make_chain(root, 300, b"deeper", siblings=2)

        def walk_with_few() -> tuple[int, int, int]:
            limit = self.open_descriptors() + 12
            resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
            rows, walk = self.walk_all(root, descriptors_max=500, threads=8)
            return len(rows), walk.stats.errors, walk.stats.threads

        assert in_child(walk_with_few) == (1 + 300 * 6, 0, 8)

    def test_paths_longer_than_path_max_are_walked_and_resumed(self, root):
        make_chain(root, 40, b"d" * 250)
        expected = [row[:5] for row in walk_reference.rows(root, SHARDS, SEED)]
        rows, _ = self.walk_all(root, descriptors_max=8)
        assert [row[:5] for row in by_path(rows)] == expected
        assert max(len(row[0]) for row in rows) > 10_000
        rows, steps = self.walk_in_steps(root, 1)
        assert [row[:5] for row in by_path(rows)] == expected
        assert steps >= 20

    def test_paths_too_long_for_a_row_are_told_and_not_descended_into(self, root):
        make_chain(root, 259, b"d" * 254)
        rows, walk = self.walk_all(root)
        too_long = [named(row) for row in rows if named(row)["flags"] & RowFlag.PATH_TOO_LONG]
        # 257 levels make 257 * 255 - 1 = 65,534 bytes; there the next names are too long.
        assert sorted(len(row["path"]) for row in too_long) == [65_535, 65_535]
        assert {row["error"] for row in too_long} == {errno.ENAMETOOLONG}
        assert {stat.S_IFMT(row["mode"]) for row in too_long} == {stat.S_IFDIR, stat.S_IFREG}
        assert len(rows) == 1 + 257 * 2 + 2
        assert walk.stats.errors == 2

    def test_what_waits_does_not_grow_with_the_width_of_a_directory(self, root):
        for i in range(12_000):
            (root / f"directory{i}").mkdir()
        rows, walk = self.walk_all(root, threads=2)
        assert len(rows) == 12_001
        # A buffer of 64 KiB holds at most 2,731 entries; two of them may come before a filesystem
        # that gives short buffers is known as one.
        assert walk.stats.pending_high <= 2 * 2731 + 64

    def test_a_slow_consumer_stops_the_threads(self, root):
        make_flat(root, 12_000)
        threads, batch_rows, queued_chunks = 4, 100, 2
        bound = (queued_chunks + threads) * batch_rows
        delivered = 0
        with self.adapter(root).walk([ROOT], options(batch_rows=batch_rows)) as walk:
            wait_for(lambda: walk.stats.chunks_high == queued_chunks, "a full queue")
            for batch in walk:
                delivered += batch.batch.num_rows
                if delivered < 6000:
                    ahead = delivered + 2 * batch_rows
                    wait_for(lambda ahead=ahead: walk.stats.entries >= ahead, "rows ahead")
                assert walk.stats.entries - delivered <= bound
        assert delivered == 12_000
        assert walk.stats.chunks_high <= queued_chunks

    def test_many_walks_leave_no_memory_descriptors_or_threads_behind(self, root):
        make_wide(root, 50, 20)

        def measure() -> tuple[int, int, int]:
            for _ in range(5):
                self.walk_all(root)
            descriptors, threads = self.open_descriptors(), len(os.listdir("/proc/self/task"))
            before = resident_bytes()
            for _ in range(40):
                self.walk_all(root)
                self.walk_in_steps(root, 500)
            grown = resident_bytes() - before
            left = len(os.listdir("/proc/self/task")) - threads
            return grown, self.open_descriptors() - descriptors, left

        grown, descriptors, threads = in_child(measure)
        assert grown < 8 << 20
        assert (descriptors, threads) == (0, 0)

    # Cancellation

    def test_a_cancelled_walk_raises_and_leaves_nothing_open(self, root):
        make_flat(root, 12_000)
        descriptors = self.open_descriptors()
        with self.adapter(root).walk([ROOT], options(batch_rows=100)) as walk:
            next(walk)
            canceller = threading.Thread(target=walk.cancel)
            canceller.start()
            canceller.join()
            with pytest.raises(WalkCancelled):
                for _ in walk:
                    pass
        assert self.open_descriptors() == descriptors
        assert walk.stats.entries < 12_000

    @pytest.mark.parametrize("batches", [0, 1, 3])
    def test_a_walk_can_be_left_at_any_time(self, root, batches):
        make_wide(root, 40, 40)
        make_chain(root, 60, b"deeper", siblings=2)
        descriptors = self.open_descriptors()
        with self.adapter(root).walk([ROOT], options(batch_rows=64, descriptors_max=16)) as walk:
            for _ in range(batches):
                next(walk)
        assert self.open_descriptors() == descriptors
        walk.close()  # a second time does nothing

    # What moves under the walk. Small batches hold the thread back after three times as many rows
    # (two chunks in the queue and its own), when the first buffer of names has been read already.

    def held_walk(self, root: Path, batch_rows: int) -> Walk:
        walk = self.adapter(root).walk([ROOT], options(threads=1, batch_rows=batch_rows))
        wait_for(lambda: walk.stats.entries == 3 * batch_rows, "the first rows")
        return walk

    def test_names_that_vanish_are_rows_with_enoent(self, root):
        make_flat(root, 500)
        with self.held_walk(root, 1) as walk:
            for path in root.iterdir():
                path.unlink()
            rows = [row for batch in walk for row in tuples(batch)]
        failed = errors_of(rows)
        assert len(rows) == 500
        if self.attributes_come_with_names:
            assert not failed  # but for files that are to be asked for once more
        else:
            assert set(failed.values()) == {(errno.ENOENT, RowFlag.STAT_FAILED)}
            assert walk.stats.vanished == len(failed) >= 490
        for row in map(named, rows):
            assert row["ino"] != 0
            assert stat.S_ISREG(row["mode"])

    def test_directories_that_vanish_or_are_swapped_are_rows_and_not_followed(self, root):
        make_wide(root, 40, 1)
        with self.adapter(root).walk([ROOT], options()) as walk:
            inodes = {row[0]: row[1] for batch in walk for row in tuples(batch)}
        elsewhere = Path(tempfile.mkdtemp(dir=root.parent))
        with self.held_walk(root, 10) as walk:
            for i in range(40):
                (root / f"directory{i}").rename(elsewhere / f"old{i}")
                if i % 3 == 1:
                    (root / f"directory{i}").symlink_to(elsewhere / f"old{i}")
                elif i % 3 == 2:
                    (root / f"directory{i}").mkdir()
                    write(root / f"directory{i}" / "new")
            rows = [named(row) for batch in walk for row in tuples(batch)]
        subprocess.run(["rm", "-rf", "--", elsewhere], check=True)
        # Thirty directories had a row when they were swapped, and were not open yet.
        failed = [row for row in rows if row["flags"] & RowFlag.LIST_FAILED]
        assert len(failed) == (40 if self.attributes_come_with_names else 30)
        expected = {0: {errno.ENOENT}, 1: {errno.ENOTDIR, errno.ELOOP}, 2: {errno.ESTALE}}
        for row in failed:
            assert row["error"] in expected[int(row["path"].removeprefix(b"directory")) % 3]
            assert row["ino"] == inodes[row["path"]]
            assert not any(other["path"].startswith(row["path"] + b"/") for other in rows)
        assert not any(row["path"].endswith(b"/file0") for row in rows)

    def test_start_directories_are_never_reached_through_a_symlink(self, root):
        (root / "real/inner").mkdir(parents=True)
        write(root / "real/inner/file")
        (root / "alias").symlink_to("real")
        (root / "real/alias").symlink_to("inner")
        starts = [PendingDirectory(b"alias/inner"), PendingDirectory(b"real/alias")]
        with self.adapter(root).walk(starts, options()) as walk:
            rows = [row for batch in walk for row in tuples(batch)]
        failed = errors_of(rows)
        assert set(failed) == {b"alias/inner", b"real/alias"}
        assert len(rows) == 2
        assert all(error in (errno.ENOTDIR, errno.ELOOP) for error, _ in failed.values())

    def test_a_start_directory_that_is_gone_is_a_row(self, root):
        starts = [PendingDirectory(b"gone/deeper"), PendingDirectory(b"missing", cookie=77)]
        with self.adapter(root).walk(starts, options()) as walk:
            rows = [row for batch in walk for row in tuples(batch)]
        assert errors_of(rows) == {
            b"gone/deeper": (errno.ENOENT, RowFlag.LIST_FAILED),
            b"missing": (errno.ENOENT, RowFlag.LIST_FAILED),
        }

    @pytest.mark.parametrize("path", [b"..", b"a/../b", b"/etc", b"a//b", b"a/", b".", b"a\0b"])
    def test_paths_that_could_lead_out_of_the_root_are_refused(self, root, path):
        with pytest.raises(AssertionError):
            self.adapter(root).walk([PendingDirectory(path)], options())

    # Roots, permissions, boundaries

    def test_a_root_that_is_missing_or_no_directory_is_refused(self, root):
        write(root / "file")
        with pytest.raises(RootMissing):
            self.adapter(root / "missing").walk([ROOT], options())
        with pytest.raises(RootNotADirectory):
            self.adapter(root / "file").walk([ROOT], options())

    def test_a_directory_that_may_not_be_read_is_two_rows(self, root):
        (root / "closed").mkdir(mode=0o700)
        write(root / "closed" / "hidden")
        (root / "unsearchable").mkdir()
        write(root / "unsearchable" / "name-only")
        os.chmod(root / "unsearchable", 0o744)
        inode = os.lstat(root / "closed").st_ino
        if os.geteuid() != 0:
            pytest.skip("only root can give files to another user")

        def walk_as_nobody() -> list[tuple]:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            first, _ = self.walk_all(root)
            with self.adapter(root).walk([PendingDirectory(b"closed")], options()) as walk:
                return [first, [row for batch in walk for row in tuples(batch)]]

        rows, again = in_child(walk_as_nobody)
        closed = [named(row) for row in rows if row[0] == b"closed"]
        assert sorted((row["flags"], row["error"]) for row in closed) == [
            (0, 0),
            (RowFlag.LIST_FAILED, errno.EACCES),
        ]
        assert errors_of(rows)[b"unsearchable/name-only"] == (errno.EACCES, RowFlag.STAT_FAILED)
        for row in [*closed, named(again[0])]:
            assert row["ino"] == inode
            assert row["parent"] == os.lstat(root).st_ino
            assert row["shard"] == mix64(inode, SEED) % SHARDS
            assert stat.S_ISDIR(row["mode"])

    def test_excluded_directories_are_recorded_and_not_entered(self, root):
        make_wide(root, 5, 3)
        st = os.lstat(root / "directory3")
        rows, _ = self.walk_all(root, excluded=((st.st_dev, st.st_ino), (0, 12345)))
        flags = {row[0]: named(row)["flags"] for row in rows}
        assert flags.pop(b"directory3") == RowFlag.EXCLUDED
        assert set(flags.values()) == {0}
        assert not any(path.startswith(b"directory3/") for path in flags)
        assert len(rows) == 1 + 5 + 4 * 3

    def test_directories_of_another_target_go_to_the_frontier_and_are_listed_from_there(self, root):
        make_wide(root, 5, 3)
        (root / "directory3" / "inner").mkdir()
        st = os.lstat(root / "directory3")
        chosen = options(elsewhere=((0, 12345), (st.st_dev, st.st_ino)))
        with self.adapter(root).walk([ROOT], chosen, True) as walk:
            rows = [row for batch in walk for row in tuples(batch)]
        assert walk.frontier == [PendingDirectory(b"directory3", device=st.st_dev, inode=st.st_ino)]
        assert walk.stats.directories == 1 + 4
        assert b"directory3" in {row[0] for row in rows}
        assert not any(row[0].startswith(b"directory3/") for row in rows)
        # The other walker has the same options, perhaps: what it starts with, it lists.
        with self.adapter(root).walk(walk.frontier, chosen) as walk:
            rows += [row for batch in walk for row in tuples(batch)]
        assert walk.frontier == []
        expected = walk_reference.rows(root, SHARDS, SEED)
        assert [row[:5] for row in by_path(rows)] == [row[:5] for row in expected]
        assert {named(row)["flags"] for row in rows} == {0}

    @needs_root
    def test_other_filesystems_are_recorded_and_entered_only_when_asked(self, root):
        make_wide(root, 3, 2)
        write(root / "covered")
        write(root / "cover")

        def walk_both() -> list[list[tuple]]:
            mount_tmpfs(root / "directory1")
            write(root / "directory1" / "foreign", 5)
            (root / "directory1" / "sub").mkdir()
            for source, place in (("directory0", "directory2"), ("cover", "covered")):
                command = ["mount", "--bind", root / source, root / place]
                subprocess.run(command, check=True)
            results = [self.walk_all(root, one_filesystem=one)[0] for one in (True, False)]
            with self.adapter(root).walk([PendingDirectory(b"directory1/sub")], options()) as walk:
                return [*results, [row for batch in walk for row in tuples(batch)]]

        within, across, resumed = in_child(walk_both)
        flags = {row[0]: named(row)["flags"] for row in within}
        assert flags.pop(b"directory1") == RowFlag.MOUNT_POINT
        assert flags.pop(b"directory2") == RowFlag.MOUNT_POINT
        assert flags.pop(b"covered") == RowFlag.MOUNT_POINT
        assert set(flags) == {b"", b"cover", b"directory0"} | {
            b"directory0/file0",
            b"directory0/file1",
        }
        assert set(flags.values()) == {0}
        assert {b"directory1/foreign", b"directory1/sub", b"directory2/file0"} <= {
            row[0] for row in across
        }
        assert {named(row)["flags"] for row in across} == {0}
        assert errors_of(resumed) == {b"directory1/sub": (errno.EXDEV, RowFlag.LIST_FAILED)}


def resident_bytes() -> int:
    fields = Path("/proc/self/statm").read_text().split()
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
