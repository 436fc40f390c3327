"""Keys: names in an order in which everything below a directory is adjacent.

Covers: the key of a name, for one and for a column; the bounds of a subtree.
Does not cover: files that are sorted by key (sorted_file).

A key is the path with "/" replaced by NUL, and one more NUL behind a directory. So keys compare
component by component, a directory comes right before what is below it, and `n` the file and `n/`
the directory are two keys, as they are two names to Bacula's catalog.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

_IFMT, _IFDIR = 0o170000, 0o040000


def name_key(path: bytes, *, is_directory: bool) -> bytes:
    """Return the key of a path relative to the root; the root itself is b"\\0"."""
    return path.replace(b"/", b"\0") + (b"\0" if is_directory else b"")


def key_path(key: bytes) -> bytes:
    """Return the path of a key, without a slash behind a directory."""
    return key.removesuffix(b"\0").replace(b"\0", b"/")


def is_directory_key(key: bytes) -> bool:
    return key.endswith(b"\0")


def subtree_bounds(path: bytes) -> tuple[bytes, bytes | None]:
    """Return the keys from which, and up to which, exclusive, a directory and all below it lie.

    None is past every key.
    """
    if not path:
        return b"", None
    key = path.replace(b"/", b"\0")
    return key + b"\0", key + b"\1"


def is_directory_column(modes: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Tell directories by st_mode."""
    result: npt.NDArray[np.bool_] = (modes & np.uint32(_IFMT)) == _IFDIR
    return result


def key_column(paths: pa.BinaryArray, modes: npt.NDArray[np.uint32]) -> pa.BinaryArray:
    """Return the keys of a column of paths with their st_mode."""
    flat = pc.replace_substring(paths, pattern=b"/", replacement=b"\0")
    is_directory = is_directory_column(modes)
    if not is_directory.any():
        return flat
    return pc.if_else(pa.array(is_directory), pc.binary_join_element_wise(flat, b"\0", b""), flat)


def path_column(keys: pa.BinaryArray) -> pa.BinaryArray:
    """Return the paths of a column of keys, without a slash behind directories."""
    lengths = pc.binary_length(keys).to_numpy(zero_copy_only=False).astype(np.int64)
    is_directory = pc.ends_with(keys, pattern=b"\0").to_numpy(zero_copy_only=False)
    if not is_directory.any():
        return pc.replace_substring(keys, pattern=b"\0", replacement=b"/")
    data = np.frombuffer(keys.buffers()[2] or b"", dtype=np.uint8)
    offsets = np.frombuffer(keys.buffers()[1], dtype=np.int32)[
        keys.offset : keys.offset + len(keys) + 1
    ].astype(np.int64)
    kept = np.ones(int(offsets[-1] - offsets[0]), dtype=bool)
    kept[offsets[1:][is_directory] - offsets[0] - 1] = False
    out = data[offsets[0] : offsets[-1]][kept]
    out = np.where(out == 0, np.uint8(ord("/")), out).astype(np.uint8)
    ends = np.zeros(len(keys) + 1, dtype=np.int32)
    np.cumsum(lengths - is_directory, out=ends[1:])
    return pa.Array.from_buffers(
        pa.binary(), len(keys), [None, pa.py_buffer(ends), pa.py_buffer(out)]
    )
