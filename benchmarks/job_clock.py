"""When jobs began and ended, finer than Bacula's whole seconds.

Covers: following the catalog and the volumes of a private Bacula while something runs jobs in it.
Does not cover: running them; what they saved (private_bacula).

The catalog is asked every 20 ms, so that is how exact the times are. A job has begun when the
catalog says that it runs, which the Director writes before it calls the daemons, and has ended when
the catalog has its end, which it writes after the last file's record.
"""

import contextlib
import sqlite3
import threading
import time
from pathlib import Path

POLL_S = 0.02
CREATED = "C"
ENDED = frozenset("TWEefAID")
LABELS_BYTES_MAX = 16_384  # of volumes that are new: their labels


class JobClock:
    """Follows the jobs that come after a JobId; a context manager."""

    def __init__(self, catalog: Path, volumes: Path, jobid: int) -> None:
        self._catalog = catalog
        self._volumes = volumes
        self._jobid = jobid
        self._volume_bytes = self._size()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="job-clock", daemon=True)
        self.began: float | None = None
        self.ended: float | None = None
        self.first_byte: float | None = None

    def __enter__(self) -> "JobClock":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._look()  # what ended after the last poll

    @property
    def seconds(self) -> float:
        """Return the time from the first job's start to the last one's end."""
        assert self.began is not None, "no job has begun"
        assert self.ended is not None, "a job has not ended"
        return self.ended - self.began

    def wait_for_first_byte(self, timeout_s: float) -> float | None:
        """Return the seconds from a job's start until data came to a volume; None: it did not."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.began is not None and self.first_byte is not None:
                return max(0.0, self.first_byte - self.began)
            self._stopping.wait(POLL_S)
        return None

    def _follow(self) -> None:
        while not self._stopping.wait(POLL_S):
            self._look()

    def _look(self) -> None:
        statuses = self._statuses()
        now = time.monotonic()
        if self.began is None and any(status != CREATED for status in statuses):
            self.began = now
        has_ended = bool(statuses) and all(status in ENDED for status in statuses)
        if not has_ended:
            self.ended = None  # another job came
        elif self.ended is None:
            self.ended = now
        if self.first_byte is None and self._size() > self._volume_bytes + LABELS_BYTES_MAX:
            self.first_byte = now

    def _statuses(self) -> list[str]:
        with (
            contextlib.suppress(sqlite3.OperationalError),  # the Director is writing: ask again
            contextlib.closing(
                sqlite3.connect(f"file:{self._catalog}?mode=ro", uri=True, timeout=POLL_S)
            ) as catalog,
        ):
            rows = catalog.execute(
                "SELECT JobStatus FROM Job WHERE JobId > ? AND Type = 'B'", (self._jobid,)
            )
            return [status for (status,) in rows]
        return []

    def _size(self) -> int:
        return sum(path.stat().st_size for path in self._volumes.iterdir() if path.is_file())
