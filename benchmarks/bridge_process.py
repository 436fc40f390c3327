"""A bridge with one run of made-up rows, for a process that drives its socket.

Covers: a coordinator without Ray, a run of one shard whose segments are committed, the server.
Does not cover: the other side of the socket (bridge).

`python -m benchmarks.bridge_process ENTRIES DIR` prints the socket's path and serves until its
standard input ends.
"""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.coordinator import Coordinator
from bacula_bridge.server import BridgeServer
from shards.ledger import LeaseResult
from shards.schema import INODE_SCHEMA
from shards.segment import SegmentInfo, write_segment
from shards.state import StateDirectory

ROLE = "walker:0"
SEGMENT_ROWS = 65_536
FILES_PER_DIRECTORY = 100
LEASE_WAIT_S = 5.0
MODE = 0o100644
STAMP_NS = 1_700_000_000 * 10**9


class _NoJobs(Catalog):
    """Stands for the catalog of a Bacula that has not run a job yet."""

    def jobs_named(self, name: str, limit: int = 100) -> list[JobRow]:
        return []


def made_up_rows(first: int, count: int) -> pa.RecordBatch:
    """Return plain files with numbers from `first` on, 4 KiB each, 100 a directory."""
    numbers = np.arange(first, first + count)
    directories = numbers // FILES_PER_DIRECTORY
    paths = [
        b"project/user%04d/run%06d/output-%09d.dat" % (d // 1000, d, n)
        for d, n in zip(directories.tolist(), numbers.tolist(), strict=True)
    ]
    known = {
        "path": pa.array(paths, pa.binary()),
        "ino": numbers + 1000,
        "mode": np.full(count, MODE),
        "nlink": np.ones(count),
        "size": np.full(count, 4096),
        "mtime": np.full(count, STAMP_NS),
        "ctime": np.full(count, STAMP_NS),
        "depth": np.full(count, 4),
    }
    columns = []
    for field in INODE_SCHEMA:
        if field.name in known:
            values = known[field.name]
            columns.append(values if field.name == "path" else pa.array(values).cast(field.type))
        elif field.nullable:
            columns.append(pa.nulls(count, field.type))
        else:
            columns.append(pa.array(np.zeros(count)).cast(field.type))
    return pa.RecordBatch.from_arrays(columns, schema=INODE_SCHEMA)


def _commit(coordinator: Coordinator, state: StateDirectory, entries: int) -> None:
    coordinator.define_dataset("bench", "posix", b"/made-up", 1)
    run = coordinator.open_run("bench", "full").number
    epoch = coordinator.take_epoch(ROLE)
    lease = coordinator.take_lease(0, ROLE, epoch, LEASE_WAIT_S)
    assert lease is not None, "a run that has just begun has a lease"
    infos: list[SegmentInfo] = []
    for first in range(0, entries, SEGMENT_ROWS):
        rows = made_up_rows(first, min(SEGMENT_ROWS, entries - first))
        infos.append(
            write_segment(
                state.segments(run),
                f"{lease.number}-{epoch}-{len(infos)}.arrow",
                rows,
                [[rows.num_rows, 0, 0]],
                run=run,
                lease=lease.number,
                epoch=epoch,
            )
        )
    result = LeaseResult(tuple(infos), (), entries, 0, 0, 0)
    coordinator.commit_lease(lease.number, ROLE, epoch, result)


def main() -> int:
    """Make the run, serve it, end with standard input."""
    entries, folder = int(sys.argv[1]), Path(sys.argv[2])
    folder.mkdir(parents=True)
    state = StateDirectory(folder / "state")
    catalog = _NoJobs(folder / "no-catalog")
    coordinator = Coordinator(state, catalog)
    _commit(coordinator, state, entries)
    path = folder / "bridge.sock"
    server = BridgeServer(path, coordinator, state, catalog)
    print(path, flush=True)
    sys.stdin.read()
    server.stop()
    coordinator.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
