"""The chain of jobs that a job builds on, as Bacula itself sees it.

Covers: which good jobs of a Job resource a restore takes together; whether what the Director names
as the base of a job agrees with it.
Does not cover: reading the catalog (catalog), what the jobs saved (shards.view).

A chain is the last Full, then the last Differential after it, then all Incrementals after that
(the Director's `uar_full`, `uar_dif` and `uar_inc` queries order by JobTDate, the end of a job).
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bacula_bridge.catalog import JobRow
from bacula_bridge.source import JoinRefused

FULL, DIFFERENTIAL, INCREMENTAL = "F", "D", "I"
LEVELS = (FULL, DIFFERENTIAL, INCREMENTAL)


class BaseUnknown(JoinRefused):
    """What the Director builds on cannot be verified."""

    template = "{0}; run the job with level=Full"


def current_chain(rows: Sequence[JobRow]) -> list[JobRow]:
    """Return the chain that a restore of a Job resource takes now, oldest first.

    rows are the catalog's jobs of the resource, in any order, of any status.
    """
    good = sorted((row for row in rows if _counts(row)), key=lambda row: (row.tdate, row.job_id))
    fulls = [row for row in good if row.level == FULL]
    if not fulls:
        return []
    chain = [fulls[-1]]
    for level in (DIFFERENTIAL, INCREMENTAL):
        after = [row for row in good if row.level == level and row.tdate > chain[-1].tdate]
        chain += after[-1:] if level == DIFFERENTIAL else after
    return chain


def _counts(row: JobRow) -> bool:
    return row.good and row.type == "B" and row.level in LEVELS


def base_chain(rows: Sequence[JobRow], level: str, previous: str) -> list[JobRow]:
    """Return the jobs that a job of this level builds on, oldest first; none for a Full.

    previous is the unique name of the job that the Director calls the base. BaseUnknown is raised
    when the catalog shows another one, or one whose files it has forgotten.
    """
    if level == FULL:
        return []
    chain = current_chain(rows)
    if level == DIFFERENTIAL:
        chain = chain[:1]
    if not chain:
        raise BaseUnknown("the catalog has no good Full of this job to build on")
    newest = chain[-1]
    if newest.unique_name != previous:
        raise BaseUnknown(
            f"the Director builds on job {previous or '(none)'}, but the catalog's newest good one"
            f" is {newest.unique_name} (JobId {newest.job_id}): was the clock set back?"
        )
    purged = [row.job_id for row in chain if row.purged]
    if purged:
        raise BaseUnknown(f"the files of JobId {purged[0]} were purged from the catalog")
    return chain


def local_time(epoch: int) -> str:
    """Return a time for a person, in the Director's own form."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(epoch))
