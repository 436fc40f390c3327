"""Run, follow and cancel jobs through a Director's console.

Covers: backup jobs and restores, several at once; their progress as it comes; their end from the
catalog; the words of a Director that refuses.
Does not cover: the console's transport (console, lab), the configuration (render, lab).

A Director starts a job that was just queued at once or within about 4 s: its queue looks at waiting
jobs every 2 s and needs up to two looks.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bacula_bridge import console
from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.errors import (
    BadValue,
    CatalogUnavailable,
    ConsoleFailed,
    ConsoleTimeout,
    JobRefused,
    JobsTimeout,
)
from bacula_bridge.render import CLIENT_NAME, RESTORE_JOB, STORAGE_NAME, quote

CALL_TIMEOUT_S = 120.0
FOLLOW_PERIOD_S = 0.5
LOOK_FAILURES_MAX = 5
JOBS_PER_CALL_MAX = 600

Level = Literal["Full", "Incremental", "Differential"]
Replace = Literal["always", "ifnewer", "ifolder", "never"]

_QUEUED = re.compile(r"Job queued\. JobId=(\d+)")
_NAME = re.compile(r"[A-Za-z0-9 ._:-]{1,127}")


@dataclass(frozen=True, slots=True)
class JobProgress:
    """What is known of a job at a moment; the status is Bacula's letter."""

    job_id: int
    status: str
    files: int
    bytes: int
    errors: int = 0
    processing: str = ""


class Director:
    """A Director behind a console: a function of commands and seconds that returns the answer."""

    def __init__(
        self,
        ask: Callable[[str, float], str],
        catalog: Catalog,
        client: str = CLIENT_NAME,
        storage: str = STORAGE_NAME,
    ) -> None:
        """Take the console, the Director's catalog, and the Client and Storage to use."""
        self._ask = ask
        self._catalog = catalog
        self._client = _name("client", client)
        self._storage = _name("storage", storage)

    def run_jobs(
        self, names: Sequence[str], level: Level = "Full", client: str | None = None
    ) -> list[int]:
        """Start jobs in one call and return their JobIds in the order of the names.

        client: the Client resource to use instead of each job's own. If the Director refuses one
        job, those that it did start are cancelled.
        """
        where = f' client="{_name("client", client)}"' if client is not None else ""
        lines = [f'run job="{_name("job", name)}" level={level}{where} yes' for name in names]
        return self._start(list(names), lines)

    def run_restores(
        self,
        bootstraps: Sequence[Path],
        where: str,
        replace: Replace = "always",
        job: str = RESTORE_JOB,
    ) -> list[int]:
        """Start one restore job for each bootstrap file, in one call; return their JobIds.

        The files lie on the Director's host. where is the folder that everything goes below; `/`
        restores in place.
        """
        tail = (
            f'client="{self._client}" storage="{self._storage}" where={quote(where)} '
            f"replace={replace} yes"
        )
        head = f'run job="{_name("job", job)}" '
        lines = [f"{head}bootstrap={quote(str(path))} {tail}" for path in bootstraps]
        return self._start([job] * len(lines), lines)

    def restore_jobs(self, job_ids: Sequence[int], where: str, replace: Replace = "always") -> int:
        """Start one plain restore of everything that the jobs saved, and return its JobId."""
        command = restore_command(job_ids, where, replace, client=self._client)
        return self._start([RESTORE_JOB], [command])[0]

    def progress(self, job_ids: Iterable[int]) -> dict[int, JobProgress]:
        """Return what the Director and the File Daemon say of those jobs that are not over."""
        commands = f".api 2 api_opts=j\n.status dir running\n.status client={self._client} running"
        answer = self._ask(commands, CALL_TIMEOUT_S)
        wanted = set(job_ids)
        merged: dict[int, JobProgress] = {}
        # The File Daemon comes last: its counts are the fresh ones.
        for row in console.json_lists(answer, "running"):
            seen = parse_progress(row)
            if seen is not None and seen.job_id in wanted:
                known = merged.get(seen.job_id)
                merged[seen.job_id] = _fresher(known, seen) if known else seen
        return merged

    def follow(
        self,
        job_ids: Sequence[int],
        report: Callable[[JobProgress], None] = lambda progress: None,
        *,
        timeout_s: float,
        period_s: float = FOLLOW_PERIOD_S,
    ) -> list[JobRow]:
        """Wait for the end of all jobs and return their rows in the same order.

        A job is over when the catalog says so and the Director no longer lists it as running, so
        that its log is complete too. report is called for each job that has news: counts grow, and
        a job's last report has the catalog's.
        """
        deadline = time.monotonic() + timeout_s
        reported: dict[int, JobProgress] = {}
        failures = 0
        while True:
            try:
                running = {
                    job_id: _fresher(seen, reported[job_id]) if job_id in reported else seen
                    for job_id, seen in self.progress(job_ids).items()
                }
                rows = self._catalog.jobs(job_ids)
                over = [each for each in rows.values() if each.ended and each.job_id not in running]
                failures = 0
            except (ConsoleFailed, ConsoleTimeout, CatalogUnavailable):
                # The jobs run on: one look that fails must not give up hours of backup.
                failures += 1
                if failures == LOOK_FAILURES_MAX:
                    raise
                running, rows, over = {}, {}, []
            news = {**running, **{each.job_id: _final(each) for each in over}}
            for job_id, progress in news.items():
                if reported.get(job_id) != progress:
                    reported[job_id] = progress
                    report(progress)
            if len(over) == len(set(job_ids)):
                return [rows[job_id] for job_id in job_ids]
            if time.monotonic() >= deadline:
                left = sorted(set(job_ids) - {each.job_id for each in over})
                raise JobsTimeout(", ".join(map(str, left)), timeout_s)
            time.sleep(min(period_s, max(0.0, deadline - time.monotonic())))

    def cancel(self, job_ids: Iterable[int]) -> str:
        """Ask for the end of jobs; return the Director's words. Jobs already over are no error."""
        commands = "\n".join(f"cancel jobid={int(job_id)} yes" for job_id in job_ids)
        return self._ask(commands, CALL_TIMEOUT_S) if commands else ""

    def job_log(self, job_id: int) -> str:
        """Return the job's log as text."""
        return "\n".join(line.text for line in self._catalog.log(job_id))

    def _start(self, names: list[str], lines: list[str]) -> list[int]:
        if not 1 <= len(lines) <= JOBS_PER_CALL_MAX:
            raise BadValue("number of jobs", len(lines), f"1 to {JOBS_PER_CALL_MAX}")
        answer = self._ask("\n".join(lines), CALL_TIMEOUT_S)
        started = queued_jobs(answer)
        if len(started) != len(lines):
            self.cancel(started)
            raise JobRefused(names[min(len(started), len(names) - 1)], refusal(answer))
        return started


def restore_command(
    job_ids: Sequence[int], where: str, replace: Replace = "always", *, client: str = CLIENT_NAME
) -> str:
    """Return the bconsole command that restores everything that the jobs saved."""
    listed = ",".join(str(int(job_id)) for job_id in job_ids)
    return (
        f'restore client="{_name("client", client)}" jobid={listed} where={quote(where)} '
        f"replace={replace} all done yes"
    )


def queued_jobs(answer: str) -> list[int]:
    """Return the JobIds that an answer to `run` or `restore` names, in order."""
    return [int(number) for number in _QUEUED.findall(answer)]


def refusal(answer: str) -> str:
    """Return the Director's words after the last job that it did start.

    Its greeting and its echo of the commands say nothing; nor does the menu that it offers then.
    """
    lines: list[str] = []
    for line in (raw.strip() for raw in answer.splitlines()):
        if _QUEUED.search(line):
            lines.clear()
        elif line.startswith("The defined Job resources are"):
            break
        elif line and not re.match(
            r"(run |restore |quit|1000 OK|Connecting to Director|Enter a period|Using Catalog"
            r"|Automatically selected Catalog)",
            line,
        ):
            lines.append(line)
    return " ".join(lines)[: console.WORDS_MAX] or "no reason given"


def parse_progress(row: dict[str, Any]) -> JobProgress | None:
    """Read one row of a `running` list; None if it is not about a job."""
    try:
        job_id = int(row["jobid"])
        if job_id < 1:
            return None
        return JobProgress(
            job_id=job_id,
            status=str(row.get("status", ""))[:1],
            files=int(row.get("jobfiles") or 0),
            bytes=int(row.get("jobbytes") or 0),
            errors=int(row.get("errors") or 0),
            processing=str(row.get("processing_file") or ""),
        )
    except (KeyError, TypeError, ValueError):
        return None


def _fresher(known: JobProgress, seen: JobProgress) -> JobProgress:
    """Join two looks at a job: the first one's status, the higher counts.

    The Director's counts are zero until a job ends, and again for a moment then.
    """
    return JobProgress(
        job_id=known.job_id,
        status=known.status,
        files=max(known.files, seen.files),
        bytes=max(known.bytes, seen.bytes),
        errors=max(known.errors, seen.errors),
        processing=seen.processing or known.processing,
    )


def _final(row: JobRow) -> JobProgress:
    return JobProgress(row.job_id, row.status, row.files, row.bytes, row.errors)


def _name(what: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise BadValue(f"{what} name", value, "letters, digits, spaces and . _ : - only")
    return value
