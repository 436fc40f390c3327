"""A view made of a snapshot of a tree, for tests of what reads views.

Covers: the calls of shards.view.View that look names up.
Does not cover: files, layers, due names.
"""

import pyarrow as pa

from shards.keys import name_key
from shards.view_schema import NameState

_SCHEMA = pa.schema(
    {
        "key": pa.binary(),
        "ino": pa.uint64(),
        "nlink": pa.uint32(),
        "state": pa.uint8(),
        "tdate": pa.int64(),
    }
)


class SnapshotView:
    """Names with their inode numbers, all of them alive."""

    def __init__(
        self, names: dict[bytes, tuple[int, bool]], nlink: int = 1, tdate: int = 1
    ) -> None:
        """names: path to inode number and whether it is a directory."""
        self._rows = {
            name_key(path, is_directory=is_directory): {
                "key": name_key(path, is_directory=is_directory),
                "ino": inode,
                "nlink": nlink,
                "state": int(NameState.LIVE),
                "tdate": tdate,
            }
            for path, (inode, is_directory) in names.items()
        }
        self._keys = sorted(self._rows)

    def lookup(self, keys):
        return self._batch([key for key in self._keys if key in set(keys)])

    def batches(self, low=b"", high=None):
        keys = [key for key in self._keys if key >= low and (high is None or key < high)]
        for start in range(0, len(keys), 2):  # small, so that what spans batches is met
            yield self._batch(keys[start : start + 2])

    def _batch(self, keys):
        return pa.RecordBatch.from_pylist([self._rows[key] for key in keys], schema=_SCHEMA)

    def names_of_inodes(self, inodes):
        return [key for key in self._keys if self._rows[key]["ino"] in set(inodes)]
