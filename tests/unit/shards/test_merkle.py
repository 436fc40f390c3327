"""Roots depend on every value and its place, and on nothing else."""

import hashlib
import struct

import pyarrow as pa
import pytest

from shards import merkle
from shards.merkle import receipts_root, run_root
from shards.schema import RECEIPT_SCHEMA


def receipts(count):
    columns = {}
    for number, field in enumerate(RECEIPT_SCHEMA):
        if pa.types.is_binary(field.type):
            values = [b"d/%d" % (row * 7) for row in range(count)]
        elif pa.types.is_fixed_size_binary(field.type):
            values = [bytes([row % 256]) * 16 for row in range(count)]
        else:
            values = [row * 31 + number for row in range(count)]
        columns[field.name] = values
    return pa.RecordBatch.from_pydict(columns, schema=RECEIPT_SCHEMA)


def cut(batch, size):
    return [batch.slice(start, size) for start in range(0, batch.num_rows, size)]


@pytest.fixture
def small_leaves(monkeypatch):
    monkeypatch.setattr(merkle, "LEAF_ROWS", 4)


def test_a_root_does_not_depend_on_the_batches(small_leaves):
    for count in range(23):
        whole = receipts(count)
        roots = {receipts_root(cut(whole, size)) for size in (1, 2, 3, 4, 5, 7, 100)}
        assert len(roots) == 1, count
        assert len(roots.pop()) == 32


def test_the_number_of_rows_and_their_order_count(small_leaves):
    roots = [receipts_root([receipts(count)]) for count in range(40)]
    assert len(set(roots)) == 40
    batch = receipts(9)
    swapped = batch.take(pa.array([0, 1, 2, 3, 8, 5, 6, 7, 4]))
    assert receipts_root([swapped]) != receipts_root([batch])


@pytest.mark.parametrize("name", RECEIPT_SCHEMA.names)
def test_every_value_counts(small_leaves, name):
    batch = receipts(11)
    before = receipts_root([batch])
    for row in (0, 6, 10):
        values = batch.column(name).to_pylist()
        value = values[row]
        values[row] = bytes([value[0] ^ 1]) + value[1:] if isinstance(value, bytes) else value ^ 1
        columns = {**batch.to_pydict(), name: values}
        changed = pa.RecordBatch.from_pydict(columns, schema=RECEIPT_SCHEMA)
        assert receipts_root([changed]) != before, row


def test_bytes_cannot_move_from_one_path_to_the_next(small_leaves):
    batch = receipts(2)
    roots = {
        receipts_root(
            [pa.RecordBatch.from_pydict({**batch.to_pydict(), "path": paths}, RECEIPT_SCHEMA)]
        )
        for paths in ([b"ab", b"c"], [b"a", b"bc"])
    }
    assert len(roots) == 2


def test_the_tree_is_the_one_of_the_format_page(small_leaves):
    """Written again from docs/formats/merkle.md, as an outsider would."""

    def h(kind, data):
        return hashlib.blake2b(data, digest_size=32, person=kind).digest()

    def leaf(rows):
        data = struct.pack("<I", len(rows))
        for field in RECEIPT_SCHEMA:
            values = [row[field.name] for row in rows]
            if field.name == "path":
                data += b"".join(struct.pack("<I", len(value)) for value in values)
            if isinstance(values[0], bytes):
                data += b"".join(values)
            else:
                width = field.type.bit_width // 8
                signed = pa.types.is_signed_integer(field.type)
                data += b"".join(value.to_bytes(width, "little", signed=signed) for value in values)
        return h(b"forebay.rows", data)

    def top(nodes):
        if len(nodes) <= 1:
            return b"".join(nodes)
        k = 1
        while k * 2 < len(nodes):
            k *= 2
        return h(b"forebay.node", top(nodes[:k]) + top(nodes[k:]))

    for count in (0, 1, 4, 5, 12, 27, 28):
        rows = receipts(count).to_pylist()
        nodes = [leaf(rows[start : start + 4]) for start in range(0, count, 4)]
        job = h(b"forebay.job", struct.pack("<Q", count) + top(nodes))
        assert receipts_root([receipts(count)]) == job, count
    jobs = [bytes([number]) * 32 for number in range(5)]
    for count in range(6):
        run = h(b"forebay.run", struct.pack("<Q", count) + top(jobs[:count]))
        assert run_root(jobs[:count]) == run, count


def test_a_golden_run_root():
    empty = receipts_root([])
    assert empty.hex() == "dbc79b8fc5c32b0d1d653e6812c8055f84ee656cb403115452d7a6f421847330"
    root = run_root([empty, empty])
    assert root.hex() == "69289b049dd4ca29cb326248996825bec729db976d7aa849ecbe0c6bd65c7ad2"
