"""What a process takes, as metrics: memory, descriptors, threads, processor time.

Covers: this process, by /proc.
Does not cover: children and Ray's own processes (Ray's metrics).
"""

from __future__ import annotations

import os
import resource
import time

from shards.measures import Sample


class ProcessMeasures:
    """Samples the process that it is made in."""

    def __init__(self, actor: str) -> None:
        self._labels = (actor,)
        self._started = time.time()

    def samples(self) -> list[Sample]:
        with open("/proc/self/statm", "rb") as file:
            pages = int(file.read().split()[1])
        with open("/proc/self/stat", "rb") as file:
            threads = int(file.read().rpartition(b")")[2].split()[17])  # num_threads, proc(5)
        times = os.times()
        values = {
            "resident_bytes": pages * os.sysconf("SC_PAGE_SIZE"),
            "open_fds": len(os.listdir("/proc/self/fd")) - 1,  # less the one that lists
            "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            "threads": threads,
            "cpu_seconds_total": times.user + times.system,
            "start_timestamp_seconds": self._started,
        }
        return [
            Sample(f"forebay_process_{what}", value, self._labels) for what, value in values.items()
        ]
