"""Sizes of the state directory, as metrics.

Covers: its parts, counted seldom, beside everything else, up to a bound; what is free around it,
and around a ledger that lies elsewhere.
Does not cover: removing anything (cluster.prune).
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

from shards.measures import Sample
from shards.state import StateDirectory

COUNT_PERIOD_S = 60.0
# Counting takes this part of the time at most: each file may cost a round trip.
COUNT_SHARE = 20
FILES_MAX = 100_000  # of a part; beyond that the figures are lower bounds


class StateMeasures:
    """Samples a state directory."""

    def __init__(self, state: StateDirectory) -> None:
        self._state = state
        self._counting: threading.Thread | None = None
        self._due = 0.0
        self._sizes: list[Sample] = []
        self._error: OSError | None = None

    def samples(self) -> list[Sample]:
        """Return the sizes as they were counted last; nothing of the parts before that.

        Counting never holds up other samples: it has a thread of its own while it lasts.
        """
        if self._counting is None or not self._counting.is_alive():
            error, self._error = self._error, None
            if error is not None:
                raise error
            if time.monotonic() >= self._due:
                self._counting = threading.Thread(target=self._count, name="sizes", daemon=True)
                self._counting.start()
        status = os.statvfs(self._state.base)
        own = os.statvfs(self._state.ledger.parent)
        return [
            *self._sizes,
            Sample("forebay_state_free_bytes", status.f_bavail * status.f_frsize),
            Sample("forebay_state_size_bytes", status.f_blocks * status.f_frsize),
            Sample("forebay_state_free_inodes", status.f_favail),
            Sample("forebay_ledger_free_bytes", own.f_bavail * own.f_frsize),
            Sample("forebay_ledger_size_bytes", own.f_blocks * own.f_frsize),
        ]

    def _count(self) -> None:
        started = time.monotonic()
        try:
            self._sizes = self._sizes_now()
        except OSError as error:
            self._error = error
        took = time.monotonic() - started
        self._due = started + max(COUNT_PERIOD_S, took * COUNT_SHARE)

    def _sizes_now(self) -> list[Sample]:
        state = self._state
        parts = {
            "runs": _tree_size(state.runs),
            "views": _tree_size(state.views),
            "changes": _tree_size(state.changes("")),
            "ledger": _ledger_size(state.ledger),
        }
        found = []
        for part, (files, size_bytes) in parts.items():
            found.append(Sample("forebay_state_files", files, (part,)))
            found.append(Sample("forebay_state_bytes", size_bytes, (part,)))
        return found


def _ledger_size(path: Path) -> tuple[int, int]:
    files = size_bytes = 0
    for suffix in ("", "-wal", "-shm"):
        size = _size(f"{path}{suffix}")
        files += size is not None
        size_bytes += size or 0
    return files, size_bytes


def _size(path: str) -> int | None:
    try:
        return os.lstat(path).st_size
    except FileNotFoundError:
        return None


def _tree_size(folder: Path) -> tuple[int, int]:
    """Return the files below a folder and their bytes; what goes meanwhile is not counted."""
    files = size_bytes = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            size = _size(os.path.join(parent, name))
            if size is None:
                continue
            files += 1
            size_bytes += size
            if files >= FILES_MAX:
                return files, size_bytes
    return files, size_bytes
