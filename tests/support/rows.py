"""Made-up rows of the INODE schema, grouped as the walker kernel groups them."""

import stat

import pyarrow as pa

from shards.schema import INODE_SCHEMA, RowClass
from shards.shard_function import mix64, shard_of


def row(path, ino, *, mode=stat.S_IFREG | 0o644, nlink=1, size=0, error=0, flags=0, **others):
    """Return one row as a dictionary, everything else 0."""
    values = dict.fromkeys(INODE_SCHEMA.names, 0)
    values.update(fid=None, btime=None, layout=None)
    values.update(path=path, ino=ino, mode=mode, nlink=nlink, size=size, error=error, flags=flags)
    values["depth"] = path.count(b"/") + 1 if path else 0
    values.update(others)
    return values


def directory(path, ino, **others):
    return row(path, ino, mode=stat.S_IFDIR | 0o755, nlink=2, **others)


def row_class(values):
    if values["error"]:
        return RowClass.PLAIN
    if stat.S_ISDIR(values["mode"]):
        return RowClass.DIRECTORY
    return RowClass.LINKED if values["nlink"] > 1 else RowClass.PLAIN


def grouped(rows, shards, seed):
    """Return (batch, counts) in the order of docs/formats/inode-schema.md."""

    def key(values):
        kind = row_class(values)
        if kind is RowClass.LINKED:
            return values["shard"], kind, mix64(values["ino"], seed), values["ino"]
        return values["shard"], kind, -values["depth"] if kind is RowClass.DIRECTORY else 0, 0

    rows = [dict(values, shard=shard_of(values["ino"], seed, shards)) for values in rows]
    rows.sort(key=key)
    counts = [[0, 0, 0] for _ in range(shards)]
    for values in rows:
        counts[values["shard"]][row_class(values)] += 1
    columns = {name: [values[name] for values in rows] for name in INODE_SCHEMA.names}
    return pa.RecordBatch.from_pydict(columns, schema=INODE_SCHEMA), counts
