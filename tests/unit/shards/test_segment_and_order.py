"""Segments hold what was written, damage is found, and streams come in the contract's order."""

import stat

import pytest

from shards import order
from shards.order import stream_rows
from shards.schema import RowClass
from shards.segment import SegmentDamaged, SegmentStore, write_segment
from tests.support.rows import directory, grouped, row, row_class

SEED = 7
SHARDS = 3


def make_segment(folder, name, rows):
    batch, counts = grouped(rows, SHARDS, SEED)
    return write_segment(folder, name, batch, counts, run=1, lease=1, epoch=1)


def some_rows(start, count):
    rows = []
    for ino in range(start, start + count):
        rows.append(row(b"d/f%d" % ino, ino, size=ino))
        if ino % 5 == 0:
            rows.append(row(b"d/l%d" % ino, ino + 10**6, nlink=2))
        if ino % 7 == 0:
            rows.append(directory(b"/".join([b"x"] * (1 + ino % 4)) + b"%d" % ino, ino + 10**7))
    return rows


def test_every_row_is_in_its_shard_and_class(tmp_path):
    rows = some_rows(1, 100)
    info = make_segment(tmp_path, "a", rows)
    store = SegmentStore(tmp_path)
    found = []
    for shard in range(SHARDS):
        for kind in RowClass:
            for values in store.rows(info, shard, kind).to_pylist():
                assert values["shard"] == shard
                assert row_class(values) is kind
                found.append(values["path"])
    assert sorted(found) == sorted(values["path"] for values in rows)


@pytest.mark.parametrize("where", [100, -100])
def test_a_flipped_bit_is_damage(tmp_path, where):
    info = make_segment(tmp_path, "a", some_rows(1, 50))
    data = bytearray((tmp_path / "a").read_bytes())
    data[where] ^= 1
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(SegmentDamaged, match="CRC-32"):
        SegmentStore(tmp_path).rows(info, 0, RowClass.PLAIN)


def test_a_truncated_segment_is_damage(tmp_path):
    info = make_segment(tmp_path, "a", some_rows(1, 50))
    data = (tmp_path / "a").read_bytes()
    (tmp_path / "a").write_bytes(data[:-1])
    with pytest.raises(SegmentDamaged, match="bytes"):
        SegmentStore(tmp_path).rows(info, 0, RowClass.PLAIN)


def test_a_missing_segment_is_damage(tmp_path):
    info = make_segment(tmp_path, "a", some_rows(1, 5))
    (tmp_path / "a").unlink()
    with pytest.raises(SegmentDamaged, match="No such file"):
        SegmentStore(tmp_path).rows(info, 0, RowClass.PLAIN)


def test_a_segment_is_never_overwritten(tmp_path):
    make_segment(tmp_path, "a", some_rows(1, 5))
    with pytest.raises(FileExistsError):
        make_segment(tmp_path, "a", some_rows(1, 5))


def check_order(rows):
    """Plain, then links with the names of an inode adjacent, then directories deepest first."""
    kinds = [row_class(values) for values in rows]
    assert kinds == sorted(kinds)
    linked = [values["ino"] for values in rows if row_class(values) is RowClass.LINKED]
    runs = [ino for i, ino in enumerate(linked) if i == 0 or linked[i - 1] != ino]
    assert len(runs) == len(set(runs)), "the names of an inode are not adjacent"
    depths = [values["depth"] for values in rows if stat.S_ISDIR(values["mode"])]
    assert depths == sorted(depths, reverse=True)


@pytest.mark.parametrize("rows_target", [3, 65_536])
def test_a_stream_of_many_segments_is_in_order_and_complete(tmp_path, monkeypatch, rows_target):
    monkeypatch.setattr(order, "LINKED_ROWS_TARGET", rows_target)
    monkeypatch.setattr(order, "BATCH_ROWS_MIN", 4)
    pages, expected = [], []
    for number in range(6):
        rows = some_rows(1 + 40 * number, 40)
        # Names of one inode in several segments.
        rows += [row(b"other%d/%d" % (number, ino), ino, nlink=6) for ino in (5_000_001, 5_000_002)]
        expected += [values["path"] for values in rows]
        pages.append([make_segment(tmp_path, f"s{number}", rows)])
    found = []
    for shard in range(SHARDS):
        store = SegmentStore(tmp_path)
        rows = [
            values
            for batch in stream_rows(store, pages, shard, SEED)
            for values in batch.to_pylist()
        ]
        check_order(rows)
        found += [values["path"] for values in rows]
    assert sorted(found) == sorted(expected)


def test_an_empty_shard_streams_nothing(tmp_path):
    info = make_segment(tmp_path, "a", [])
    assert list(stream_rows(SegmentStore(tmp_path), [[info]], 0, SEED)) == []


def test_plain_rows_go_before_the_next_page_is_asked_for(tmp_path):
    first = make_segment(tmp_path, "a", [row(b"%d" % i, i) for i in range(1, 30)])

    def pages():
        yield [first]
        raise AssertionError("asked for the next page before handing on the first")

    stream = stream_rows(SegmentStore(tmp_path), pages(), 0, SEED)
    assert next(stream).num_rows > 0
