"""Compare a made-up tree of ROWS names with the views of three shards, print the peak memory.

Run as a program of its own, `python -m tests.support.plan_memory ROWS FOLDER`: what it prints, in
KiB, is the peak of the process that compares. Tree and views are made by another one.

Of each 100 names one has changed, two are an inode's, and one of 200 each is gone and new.
"""

import multiprocessing
import re
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.order import stream_rows
from shards.plan import EVERYWHERE, Manifest, make_plan
from shards.receipts import ReceiptsWriter
from shards.schema import INODE_SCHEMA, RECEIPT_SCHEMA, ReceiptStatus, RowClass
from shards.segment import SegmentInfo, SegmentStore, write_segment
from shards.shard_function import mix64_column
from shards.state import StateDirectory
from shards.view import ChainLink, ViewStore
from tests.support.receipts import DIRECTORY, FILE

SHARDS, SEED = 3, 7
SEGMENT_ROWS = 65_536
CHANGED_NS, LATER_NS = 10**18, 2 * 10**18
BASE_RUN, RUN = 1, 2
_STEP = 1_000_003  # a prime: names come in no order
_GONE, _NEW, _CHANGED, _FIRST_NAME, _SECOND_NAME = 11, 112, 7, 98, 99


def tree(rows: int, is_base: bool) -> Iterator[tuple[pa.RecordBatch, list[list[int]]]]:
    """Yield so many files, and a directory for each 100, in batches like the kernel's."""
    for start in range(0, rows, SEGMENT_ROWS):
        number = np.arange(start, min(start + SEGMENT_ROWS, rows), dtype=np.int64) * _STEP % rows
        number = number[number % 200 != (_NEW if is_base else _GONE)]
        folders = number[number % 100 == 0] // 100
        place, is_folder = number % 100, np.zeros(len(number) + len(folders), dtype=bool)
        is_folder[len(number) :] = True
        inode = 1 + np.concatenate((number - (place == _SECOND_NAME), rows + folders))
        is_changed = (place == _CHANGED) | (number % 10_000 // 2 == _FIRST_NAME // 2)
        is_changed = np.concatenate((is_changed, np.zeros(len(folders), dtype=bool)))
        is_linked = np.concatenate((place >= _FIRST_NAME, np.zeros(len(folders), dtype=bool)))
        hashes = mix64_column(inode.astype(np.uint64), SEED)
        shard = (hashes % np.uint64(SHARDS)).astype(np.int64)
        row_class = np.where(
            is_folder, RowClass.DIRECTORY, np.where(is_linked, RowClass.LINKED, RowClass.PLAIN)
        )
        known = {
            "path": _paths(number, folders),
            "ino": inode,
            "mode": np.where(is_folder, DIRECTORY, FILE),
            "nlink": np.where(is_linked | is_folder, 2, 1),
            "mtime": np.where(is_changed & (not is_base), CHANGED_NS + 1, CHANGED_NS),
            "ctime": np.where(is_changed & (not is_base), CHANGED_NS + 1, CHANGED_NS),
            "depth": np.where(is_folder, 2, 4),
            "shard": shard,
        }
        order = np.lexsort((np.where(is_linked, hashes, 0), row_class, shard))
        batch = _batch(known, INODE_SCHEMA, len(inode)).take(pa.array(order))
        counts = [
            [int(np.count_nonzero((shard == k) & (row_class == each))) for each in range(3)]
            for k in range(SHARDS)
        ]
        yield batch, counts


def _paths(number: np.ndarray, folders: np.ndarray) -> pa.Array:
    above, stem, below = (_text(part) for part in (number // 100, number, folders))
    files = pc.binary_join_element_wise("project/run", above, "/data/file", stem, "")
    names = pc.binary_join_element_wise("project/run", below, "")
    return pc.cast(pa.concat_arrays([files, names]), pa.binary())


def _text(numbers: np.ndarray) -> pa.Array:
    return pc.cast(pa.array(numbers), pa.string())


def _batch(known: dict[str, object], schema: pa.Schema, rows: int) -> pa.RecordBatch:
    zeros = np.zeros(rows, dtype=np.int64)
    nothing = pa.Array.from_buffers(pa.binary(16), rows, [None, pa.py_buffer(bytes(16 * rows))])
    columns = []
    for field in schema:
        if field.nullable:
            columns.append(pa.nulls(rows, field.type))
        elif field.type == nothing.type:
            columns.append(nothing)
        else:
            columns.append(pc.cast(pa.array(known.get(field.name, zeros)), field.type))
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def make(rows: int, folder: Path) -> tuple[tuple[SegmentInfo, ...], dict[int, ChainLink]]:
    """Write the tree as it is now, and as it was the receipts and layers of three jobs."""
    state = StateDirectory(folder)
    infos = {}
    for run in (BASE_RUN, RUN):
        state.make_run(run)
        infos[run] = tuple(
            write_segment(
                state.segments(run), f"{number}", batch, counts, run=run, lease=1, epoch=1
            )
            for number, (batch, counts) in enumerate(tree(rows, run == BASE_RUN))
        )
    links = {}
    store = SegmentStore(state.segments(BASE_RUN))
    for shard in range(SHARDS):
        writer = ReceiptsWriter(state.receipts(BASE_RUN), shard, 1 + shard)
        sent, last = 0, 0
        for batch in stream_rows(store, iter([list(infos[BASE_RUN])]), shard, SEED):
            inode = batch.column("ino").to_numpy().astype(np.int64)
            is_link = inode == np.concatenate(([last], inode[:-1]))
            is_link &= batch.column("mode").to_numpy() == FILE
            last = int(inode[-1])
            indexes = sent + np.arange(batch.num_rows)
            sent += batch.num_rows
            known = {name: batch.column(name) for name in ("path", "ino", "mode", "nlink")}
            known |= {
                "number": indexes,
                "file_index": 1 + indexes,
                "status": np.where(is_link, ReceiptStatus.LINK, ReceiptStatus.SAVED),
                "read_ns": np.full(batch.num_rows, LATER_NS),
            }
            known |= {f"{t}_s": np.full(batch.num_rows, CHANGED_NS // 10**9) for t in "mc"}
            seconds = np.full(batch.num_rows, CHANGED_NS // 10**9)
            known |= {"mtime_s": seconds, "ctime_s": seconds}
            writer.write(_batch(known, RECEIPT_SCHEMA, batch.num_rows))
        links[shard] = ChainLink(BASE_RUN, shard, 1 + shard, 100, writer.commit(), 0)
        ViewStore(state).view((links[shard],))
    return infos[RUN], links


def main() -> None:
    rows, folder = int(sys.argv[1]), Path(sys.argv[2])
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=1, mp_context=spawn) as pool:
        infos, links = pool.submit(make, rows, folder).result()
    state = StateDirectory(folder)
    store = ViewStore(state)
    views = {shard: store.view((link,)) for shard, link in links.items()}
    manifest = Manifest(SegmentStore(state.segments(RUN)), infos, SHARDS, SEED)
    plans = state.plans(RUN)
    plans.mkdir()
    made = make_plan(manifest, EVERYWHERE, views, views, plans)
    expected = {
        RowClass.PLAIN: rows // 100 + rows // 200,
        RowClass.LINKED: 2 * (rows // 10_000),
        RowClass.DIRECTORY: 0,
        RowClass.DELETED: rows // 200,
    }
    for row_class, count in expected.items():
        found = sum(info.count(shard, row_class) for info in made for shard in range(SHARDS))
        assert found == count, (row_class, found, count)
    # Not ru_maxrss: that begins with the size of whoever started the process.
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert peak is not None
    print(peak.group(1))


if __name__ == "__main__":
    main()
