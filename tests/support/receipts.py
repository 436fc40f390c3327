"""Made-up receipts, and layers and views as slow dictionaries to compare the fast ones with."""

import stat

import pyarrow as pa

from shards.keys import name_key
from shards.schema import RECEIPT_SCHEMA, ReceiptStatus
from shards.view_schema import LAYER_SCHEMA, NameState

S = 10**9
FILE, DIRECTORY = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755
READ_AT = 1_700_000_000  # when made-up receipts were read, unless they say otherwise
CHANGED_AT = 1_600_000_000
MARGIN_NS = 2 * S
_COPIED = ("ino", "size", "mode", "uid", "gid", "nlink", "rdev", "sent_bytes", "hash")
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1


def receipt(path, status=ReceiptStatus.SAVED, file_index=0, **others):
    """Return one receipt as a dictionary, what is not said 0."""
    values = dict.fromkeys(RECEIPT_SCHEMA.names, 0)
    values.update(path=path, status=status, file_index=file_index, mode=FILE, nlink=1)
    values.update(ino=1, ctime_s=CHANGED_AT, read_ns=READ_AT * S, hash=bytes(16))
    values.update(others)
    return values


def receipts_batch(receipts):
    columns = {name: [values[name] for values in receipts] for name in RECEIPT_SCHEMA.names}
    return pa.RecordBatch.from_pydict(columns, schema=RECEIPT_SCHEMA)


def slow_layer(receipts, jobid, margin_ns):
    """Return {key: row} of one job's receipts, row as LAYER_SCHEMA has it."""
    names = {}
    first = None
    for values in receipts:
        status, file_index = values["status"], values["file_index"]
        is_live = file_index > 0 and status != ReceiptStatus.DELETED
        if status == ReceiptStatus.SKIPPED:
            continue
        if is_live and status in (ReceiptStatus.SAVED, ReceiptStatus.CHANGED, ReceiptStatus.STUB):
            first = values
        row = {name: values[name] for name in _COPIED}
        row.update(key=_key(values), jobid=jobid, file_index=0, first_index=0, due=True)
        row.update(mtime=_ns(values, "mtime"), ctime=_ns(values, "ctime"), state=NameState.ABSENT)
        if status == ReceiptStatus.DELETED:
            row.update(state=NameState.DELETED, due=False)
        elif is_live:
            row.update(state=NameState.LIVE, file_index=file_index)
            row["due"] = status not in (ReceiptStatus.SAVED, ReceiptStatus.LINK)
            row["due"] |= row["ctime"] > values["read_ns"] - margin_ns
            row["due"] |= _saved_as(receipts, values) > 1
            if status == ReceiptStatus.LINK:
                is_known = first is not None and first["ino"] == values["ino"]
                row["first_index"] = first["file_index"] if is_known else 0
                row["due"] |= not is_known or first["status"] == ReceiptStatus.STUB
        names.setdefault(row["key"], []).append((row, status == ReceiptStatus.LINK))
    return {key: _of_one_name(rows) for key, rows in names.items()}


def slow_fold(layers):
    """Return {key: row} of [({key: row}, tdate)], oldest first, row as VIEW_SCHEMA has it."""
    view = {}
    for layer, tdate in layers:
        for key, row in layer.items():
            row = {"tdate": tdate} | row
            held = view.get(key)
            if held is None or held["state"] == NameState.ABSENT or _outlives(row, held):
                view[key] = row
            else:
                view[key] = held | {"due": True}
    return view


def rows_of(batch):
    """Return {key: row} of a layer or view; keys must ascend, each once."""
    rows = batch.to_pylist()
    keys = [row["key"] for row in rows]
    assert keys == sorted(set(keys))
    return dict(zip(keys, rows, strict=True))


def layer_batch(layer):
    """Return {key: row} as LAYER_SCHEMA."""
    return pa.RecordBatch.from_pylist([layer[key] for key in sorted(layer)], schema=LAYER_SCHEMA)


def _outlives(row, held):
    if row["state"] == NameState.ABSENT:
        return False

    def rank(row):
        return row["tdate"], row["state"] == NameState.LIVE, row["file_index"]

    return rank(row) >= rank(held)


def _of_one_name(rows):
    live = [row for row, _ in rows if row["state"] == NameState.LIVE]
    files = [row for row, is_link in rows if row["state"] == NameState.LIVE and not is_link]
    deleted = [row for row, _ in rows if row["state"] == NameState.DELETED]
    winner = files[-1] if files else live[0] if live else (deleted or [rows[-1][0]])[-1]
    return winner | {"due": any(row["due"] for row, _ in rows)}


def _saved_as(receipts, values):
    """Count the names of an inode with several that were saved as files of their own."""
    if values["nlink"] < 2:
        return 0
    return sum(
        other["ino"] == values["ino"]
        and other["nlink"] > 1
        and other["file_index"] > 0
        and not stat.S_ISDIR(other["mode"])
        and other["status"]
        not in (ReceiptStatus.LINK, ReceiptStatus.DELETED, ReceiptStatus.SKIPPED)
        for other in receipts
    )


def _key(values):
    return name_key(values["path"], is_directory=stat.S_ISDIR(values["mode"]))


def _ns(values, name):
    return max(_INT64_MIN, min(_INT64_MAX, values[f"{name}_s"] * S + values[f"{name}_ns"]))
