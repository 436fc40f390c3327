"""A whole restore: one selection from the receipts, N parallel jobs, the directories last.

Covers: choosing the run, checking the place, the bootstrap files, following the jobs.
Does not cover: what lands on disk (FD plugin), which FileIndexes (shards.selection).
"""

from __future__ import annotations

import os
import stat
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bacula_bridge.bootstrap import Ranges, bootstrap
from bacula_bridge.catalog import Catalog, JobRow, Span
from bacula_bridge.director import Director, JobProgress
from bacula_bridge.lab import Lab
from cluster.labs import borrow_lab
from cluster.output import show_path
from cluster.progress import BackupDisplay
from cluster.records import GOOD_RUNS, RunRecord
from cluster.replace import Replace
from cluster.settings import Settings
from shards.errors import ForebayError, UsageError
from shards.receipts import read_receipts
from shards.selection import JobSelection, select

MARKED_MODE = 0o4700  # bacula_bridge/plugin/restore_directories.h
RESTORE_TIMEOUT_S = 30 * 86_400.0
COMPLAINTS = ("Warning:", "Error:", "Fatal error:")
COMPLAINTS_MAX = 100
IN_PLACE = Path("/")
GOOD = "T"
GOOD_WITH_WARNINGS = "W"


Pairs = list[tuple[int, int]]


class PlaceNotEmpty(UsageError):
    """Something is there already."""

    template = (
        "{0} is not empty; name an empty directory, or say with --replace what to do with"
        " what is there"
    )


class PlaceUnusable(UsageError):
    """The restore cannot go there."""

    template = "cannot restore to {0}: {1}"


class NothingMatches(UsageError):
    """A path is not in the run."""

    template = "run {0} has nothing at {1}; paths are relative to {2}, or absolute"


class VolumesGone(ForebayError):
    """The catalog no longer has a job."""

    template = (
        "the catalog no longer has JobId {0} of run {1}: its volume was purged or another catalog"
        " is in use; restore another run"
    )


@dataclass(slots=True)
class RestoreResult:
    """What a restore did."""

    run: int
    to: Path
    tree: Path  # where the dataset's root is now
    names: int = 0
    size_bytes: int = 0
    seconds: float = 0.0
    jobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return all(
            job["status"] == GOOD_WITH_WARNINGS or (job["status"] == GOOD and not job["missing"])
            for job in self.jobs
        )

    @property
    def warned(self) -> bool:
        return any(job["status"] == GOOD_WITH_WARNINGS for job in self.jobs)


def check_place(to: Path | None, *, in_place: bool, replace: Replace | None) -> Path:
    """Return where the restore goes, or say why it cannot."""
    if in_place == (to is not None):
        raise UsageError("say where to: --to DIR, or --in-place for the original place")
    if to is None:
        if replace is None:
            raise UsageError("--in-place needs --replace always, ifnewer, ifolder or never")
        return IN_PLACE
    try:
        if to.is_dir():
            if replace is None and any(to.iterdir()):
                raise PlaceNotEmpty(str(to))
        elif to.exists() or to.is_symlink():
            raise PlaceUnusable(str(to), "it is not a directory")
        place = to.resolve()
    except OSError as error:
        raise PlaceUnusable(str(to), error.strerror) from error
    return place


def relative_paths(root: bytes, paths: Sequence[str]) -> list[bytes] | None:
    """Return paths relative to the root; None if none were given."""
    if not paths:
        return None
    relative = []
    for path in map(os.fsencode, paths):
        if path == root or path.startswith(root.rstrip(b"/") + b"/"):
            path = path[len(root) :]
        relative.append(os.path.normpath(b"/" + path).strip(b"/"))
    return relative


def restore(
    settings: Settings,
    record: RunRecord,
    place: Path,
    paths: Sequence[str],
    replace: Replace,
    display: BackupDisplay,
) -> RestoreResult:
    """Restore a run or some paths of it."""
    run = record.run
    started = time.monotonic()
    selections = _select(settings, record, paths)
    borrowed = borrow_lab(settings, run.shards, display.say)
    try:
        restorer = _Restorer(borrowed.lab, record, place, replace, display)
        restorer.look_up()
        place.mkdir(parents=True, exist_ok=True)
        result = RestoreResult(run.number, place, place / os.fsdecode(run.root).lstrip("/"))
        result.names = sum(selection.names for selection in selections.values())
        result.size_bytes = sum(selection.size_bytes for selection in selections.values())
        with tempfile.TemporaryDirectory(prefix="bsr-", dir=settings.home) as folder:
            contents = [{jobid: s.contents} for jobid, s in selections.items() if s.contents]
            directories = {jobid: s.directories for jobid, s in selections.items()}
            display.say(f"restoring {result.names:,} names to {place}")
            # Attributes of a directory would change while other jobs still write into it.
            for part in (contents, [directories]):
                result.jobs += restorer.run(Path(folder), part)
            if replace is not Replace.ALWAYS:
                _clear_marks(place, result.tree)
    finally:
        borrowed.give_back()
    result.seconds = time.monotonic() - started
    return result


def _clear_marks(place: Path, tree: Path) -> None:
    """Give the directories between the place and the tree their plain mode.

    No entry of the run covers them. The plugin marks what it makes, so that a later job does not
    take it for something that was there; it cannot know which job is the last.
    """
    folder = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in tree.relative_to(place).parts[:-1]:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(name, flags, dir_fd=folder)
            os.close(folder)
            folder = below
            if stat.S_IMODE(os.fstat(folder).st_mode) == MARKED_MODE:
                os.fchmod(folder, 0o700)
    except OSError:
        return  # nothing was restored there, or a job has said what stands in the way
    finally:
        os.close(folder)


def _select(settings: Settings, record: RunRecord, paths: Sequence[str]) -> dict[int, JobSelection]:
    run = record.run
    if not record.saved_jobs:
        raise UsageError(f"run {run.number} has no good job: there is nothing to restore")
    wanted = relative_paths(run.root, paths)
    selections = {}
    for job in record.saved_jobs:
        assert job.receipts is not None, "a good job has receipts"
        batches = read_receipts(settings.state.receipts(run.number), job.receipts)
        selections[job.jobid] = select(batches, wanted)
    matched = set().union(*(selection.matched for selection in selections.values()))
    for given, path in zip(paths, wanted or (), strict=True):
        if path not in matched:
            raise NothingMatches(run.number, given, show_path(run.root))
    return selections


class _Restorer:
    """Turns selections into bootstrap files and jobs."""

    def __init__(
        self, lab: Lab, record: RunRecord, place: Path, replace: Replace, display: BackupDisplay
    ) -> None:
        self._catalog = Catalog(lab.catalog)
        self._director = Director(lab.console, self._catalog)
        self._record = record
        self._place = place
        self._replace = replace
        self._display = display
        self._jobs: dict[int, JobRow] = {}
        self._spans: dict[int, list[Span]] = {}
        self._files = 0
        self._shown = 0  # jobs that have a bar of their own already

    def look_up(self) -> None:
        """Find the run's jobs and their places on volumes in the catalog."""
        self._jobs = self._catalog.jobs(job.jobid for job in self._record.saved_jobs)
        for job in self._record.saved_jobs:
            if job.jobid not in self._jobs:
                raise VolumesGone(job.jobid, self._record.run.number)
            self._spans[job.jobid] = self._catalog.spans(job.jobid)

    def run(self, folder: Path, parts: list[dict[int, Pairs]]) -> list[dict[str, Any]]:
        """Restore several disjoint parts at once, a job each; return how the jobs ended."""
        files, expected = [], []
        for part in parts:
            selection = {jobid: Ranges(tuple(pairs)) for jobid, pairs in part.items() if pairs}
            if not selection:
                continue
            self._files += 1
            path = folder / f"{self._files}.bsr"
            with path.open("w") as stream:
                stream.writelines(bootstrap(selection, self._jobs, self._spans))
            files.append(path)
            expected.append(sum(ranges.count() for ranges in selection.values()))
        if not files:
            return []
        jobids = self._director.run_restores(files, str(self._place), self._replace.value)
        numbers = {jobid: number for number, jobid in enumerate(jobids)}

        def report(progress: JobProgress) -> None:
            number = numbers[progress.job_id]
            self._display.shard(
                self._shown + number, progress.files, expected[number], progress.bytes, ""
            )

        try:
            rows = self._director.follow(jobids, report, timeout_s=RESTORE_TIMEOUT_S)
        except BaseException:
            self._director.cancel(jobids)
            raise
        self._shown += len(jobids)
        return [
            {
                "jobid": row.job_id,
                "status": row.outcome,
                "files": row.files,
                "bytes": row.bytes,
                "errors": row.errors,
                "missing": self._missing(row, wanted),
                "log": self._complaints(row),
            }
            for row, wanted in zip(rows, expected, strict=True)
        ]

    def _missing(self, row: JobRow, expected: int) -> int:
        """Count what should have come: for a bootstrap file of ours Bacula itself does not.

        In the other modes what is there already is left out on purpose.
        """
        return max(0, expected - row.files) if self._replace is Replace.ALWAYS else 0

    def _complaints(self, row: JobRow) -> list[str]:
        """Return what the File Daemon said of single files."""
        if row.outcome == GOOD:
            return []
        lines = self._director.job_log(row.job_id).splitlines()
        told = [line.strip() for line in lines if any(word in line for word in COMPLAINTS)]
        return told[:COMPLAINTS_MAX]


def incomplete_note(record: RunRecord) -> str | None:
    """Say what a restore of this run cannot bring."""
    if record.run.state in GOOD_RUNS:
        return None
    return (
        f"run {record.run.number} is {record.run.state.value}: only"
        f" {len(record.saved_jobs)} of {record.run.shards} shards can be restored"
    )
