"""Make a layer of ROWS made-up receipts, read a view of it and another, print the peak memory.

Run as a program of its own, `python -m tests.support.view_memory ROWS FOLDER`: the peak is that of
the process.
"""

import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shards.layer import fold, inode_rows, layer_from_receipts, with_tdate
from shards.schema import RECEIPT_SCHEMA, ReceiptStatus
from shards.sorted_file import SortedFile, external_sort, key_ranges, merge_sorted, write_sorted
from shards.view_schema import LAYER_SCHEMA
from tests.support.receipts import FILE

BATCH_ROWS = 4_096
_STEP = 1_000_003  # a prime: names come in no order


def many_receipts(rows: int) -> Iterator[pa.RecordBatch]:
    """Yield receipts of so many files, in batches like the bridge's."""
    for start in range(0, rows, BATCH_ROWS):
        number = np.arange(start, min(start + BATCH_ROWS, rows), dtype=np.int64)
        name = number * _STEP % rows
        folder, stem = (pc.cast(pa.array(part), pa.string()) for part in (name // 100, name))
        path = pc.binary_join_element_wise("project/run", folder, "/data/file", stem, "")
        known = {
            "path": pc.cast(path, pa.binary()),
            "hash": pa.Array.from_buffers(
                pa.binary(16), len(name), [None, pa.py_buffer(bytes(16 * len(name)))]
            ),
            "ino": name + 1,
            "mode": np.full(len(name), FILE),
            "nlink": np.full(len(name), 2),
            "status": np.full(len(name), int(ReceiptStatus.SAVED)),
            "file_index": number + 1,
        }
        zeros = np.zeros(len(name), dtype=np.int64)
        yield pa.RecordBatch.from_arrays(
            [pc.cast(pa.array(known.get(f.name, zeros)), f.type) for f in RECEIPT_SCHEMA],
            schema=RECEIPT_SCHEMA,
        )


def main() -> None:
    rows, folder = int(sys.argv[1]), Path(sys.argv[2])
    files = []
    for jobid in (1, 2):
        path = folder / f"layer-{jobid}"
        receipts = many_receipts(rows if jobid == 1 else rows // 3)
        write_sorted(path, LAYER_SCHEMA, layer_from_receipts(receipts, jobid, 0, folder))
        files.append(SortedFile(path))
    live = (inode_rows(files[0].range(low, high)) for low, high in key_ranges(files[:1]))
    schema = inode_rows(files[0].range(b"", b"")).schema
    inodes = sum(batch.num_rows for batch in merge_sorted(external_sort(live, schema, folder, "i")))
    names = 0
    for low, high in key_ranges(files):
        layers = [with_tdate(file.range(low, high), {1: 1, 2: 2}) for file in files]
        names += fold(layers).num_rows
    assert names == inodes == rows, (names, inodes)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)


if __name__ == "__main__":
    main()
