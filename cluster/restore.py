"""A whole restore: N parallel jobs, the directories last.

Covers: checking the place, the bootstrap files, following the jobs.
Does not cover: what is taken from which jobs (restore_plan), what lands on disk (FD plugin).
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bacula_bridge.bootstrap import bootstrap
from bacula_bridge.catalog import JobRow, Span
from bacula_bridge.director import JobProgress
from cluster.bacula import Bacula, borrow_bacula, the_catalog
from cluster.output import show_path
from cluster.progress import BackupDisplay
from cluster.records import RunRecord
from cluster.replace import Replace
from cluster.restore_plan import Part, RestorePlan, plan_restore
from cluster.settings import Settings
from shards.errors import UsageError

MARKED_MODE = 0o4700  # bacula_bridge/plugin/restore_directories.h
RESTORE_TIMEOUT_S = 30 * 86_400.0
COMPLAINTS = ("Warning:", "Error:", "Fatal error:")
COMPLAINTS_MAX = 100
IN_PLACE = Path("/")
GOOD = "T"
GOOD_WITH_WARNINGS = "W"


class PlaceNotEmpty(UsageError):
    """Something is there already."""

    template = (
        "{0} is not empty; name an empty directory, or say with --replace what to do with"
        " what is there"
    )


class PlaceUnusable(UsageError):
    """The restore cannot go there."""

    template = "cannot restore to {0}: {1}"


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
    notes: list[str] = field(default_factory=list)  # what does not come as it was in the run

    @property
    def good(self) -> bool:
        return all(
            job["status"] == GOOD_WITH_WARNINGS or (job["status"] == GOOD and not job["missing"])
            for job in self.jobs
        )

    @property
    def warned(self) -> bool:
        return bool(self.notes) or any(job["status"] == GOOD_WITH_WARNINGS for job in self.jobs)


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
    plan = dry_run(settings, record, paths, display)
    with borrow_bacula(settings, run.shards, display.say) as bacula:
        restorer = Restorer(bacula, plan, place, replace, display)
        place.mkdir(parents=True, exist_ok=True)
        result = RestoreResult(run.number, place, place / os.fsdecode(run.root).lstrip("/"))
        result.names, result.size_bytes = plan.names, plan.size_bytes
        result.notes = plan.notes
        with bacula.bootstraps() as folder:
            display.say(f"restoring {result.names:,} names to {place}")
            # Attributes of a directory would change while other jobs still write into it.
            for parts in (plan.early, plan.contents, [plan.directories]):
                result.jobs += restorer.run(folder, parts)
            if replace is not Replace.ALWAYS:
                _clear_marks(place, result.tree)
    result.seconds = time.monotonic() - started
    return result


def dry_run(
    settings: Settings, record: RunRecord, paths: Sequence[str], display: BackupDisplay
) -> RestorePlan:
    """Return what would be restored from which jobs, and say what does not go without saying."""
    catalog = the_catalog(settings, display.say)
    plan = plan_restore(settings, catalog, record, paths)
    for note in plan.notes:
        display.say(note)
    for path in plan.first_names:
        display.say(f"{show_path(path)} comes too: names of your choice are hard links to it")
    return plan


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


class Restorer:
    """Turns the parts of a plan into bootstrap files and jobs."""

    def __init__(
        self,
        bacula: Bacula,
        plan: RestorePlan,
        place: Path,
        replace: Replace,
        display: BackupDisplay,
    ) -> None:
        self._catalog = bacula.catalog
        self._director = bacula.director
        self._restore_job = bacula.restore_job
        self._mode = 0o600 if bacula.is_private else 0o644
        self._jobs = plan.jobs
        self._place = place
        self._replace = replace
        self._display = display
        self._spans: dict[int, list[Span]] = {}
        self._files = 0
        self._shown = 0  # jobs that have a bar of their own already

    def run(self, folder: Path, parts: Sequence[Part]) -> list[dict[str, Any]]:
        """Restore several disjoint parts at once, a job each; return how the jobs ended."""
        files, expected = [], []
        for part in parts:
            selection = {jobid: ranges for jobid, ranges in part.items() if ranges.pairs}
            if not selection:
                continue
            for jobid in selection.keys() - self._spans.keys():
                self._spans[jobid] = self._catalog.spans(jobid)
            self._files += 1
            path = folder / f"{self._files}.bsr"
            with path.open("w") as stream:
                os.fchmod(stream.fileno(), self._mode)
                stream.writelines(bootstrap(selection, self._jobs, self._spans))
            files.append(path)
            expected.append(sum(ranges.count() for ranges in selection.values()))
        if not files:
            return []
        jobids = self._director.run_restores(
            files, str(self._place), self._replace.value, self._restore_job
        )
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
