"""Which archived runs stay: young ones, the newest, and all that these build on.

Covers: the rule, applied to an archive and to what the ledger knows; removing the others, index
first.
Does not cover: the state directory's own files (cluster.prune), Bacula's volumes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from cluster.archive.index import RunHead, index_name, indexes, run_folder, run_numbers
from cluster.archive.store import ArchiveStore
from shards.ledger_schema import RunState

DAY_S = 86_400.0
_WHOLE = (RunState.COMPLETE, RunState.WARNINGS)


@dataclass(frozen=True, slots=True)
class ArchivePrunable:
    """A run that nothing in the archive builds on any more."""

    run: int
    dataset: str
    ended: float
    size_bytes: int
    reason: str


@dataclass(slots=True)
class ArchivePrunePlan:
    """What is to go, and what has no index and nobody knows."""

    items: list[ArchivePrunable] = field(default_factory=list)
    kept: int = 0
    kept_bytes: int = 0
    unknown: list[str] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return sum(item.size_bytes for item in self.items)


def kept_runs(heads: Iterable[RunHead], keep_days: int | None, now: float) -> set[int]:
    """Return the runs that stay: those of the last days, the newest, and what they need.

    A run needs the jobs that its own build on, and, for a shard that it has no good job of, the
    last good one before.
    """
    every = sorted(heads, key=lambda head: head.run)
    if keep_days is None:
        return {head.run for head in every}
    cutoff = now - keep_days * DAY_S
    waiting = [head for head in every if head.ended >= cutoff]
    for name in {head.dataset for head in every}:
        own = [head for head in every if head.dataset == name]
        waiting += own[-1:] + [head for head in own if head.state in _WHOLE][-1:]
    kept: set[int] = set()
    seen: set[int] = set()
    while waiting:
        head = waiting.pop()
        if id(head) not in seen:
            seen.add(id(head))
            kept.add(head.run)
            waiting += _needed(head, every)
    return kept


def _needed(head: RunHead, every: Sequence[RunHead]) -> list[RunHead]:
    chain = {jobid for job in head.jobs if job.is_good for jobid in job.chain}
    own = [other for other in every if other.dataset == head.dataset]
    needed = [
        other
        for other in own
        if other.run == head.run or any(job.jobid in chain for job in other.jobs)
    ]
    missing = set(range(head.shards)) - {job.shard for job in head.jobs if job.is_good}
    for other in reversed(own):
        if other.run < head.run and other.scheme == head.scheme:
            brings = {job.shard for job in other.jobs if job.is_good} & missing
            if brings:
                needed.append(other)
                missing -= brings
    return needed


def plan_archive_prune(
    store: ArchiveStore, ledger: str, local: Sequence[RunHead], keep_days: int, now: float
) -> ArchivePrunePlan:
    """Return what can go. An index that cannot be read stops it: nobody knows what that needs."""
    archived = {index.head.run: index for index in indexes(store, ledger)}
    heads = [index.head for index in archived.values()]
    kept = kept_runs([*heads, *local], keep_days, now)
    plan = ArchivePrunePlan()
    for run, index in sorted(archived.items()):
        if run in kept:
            plan.kept += 1
            plan.kept_bytes += index.size_bytes
            continue
        days = int((now - index.head.ended) / DAY_S)
        reason = f"it ended {days} days ago, and no run that stays builds on it"
        plan.items.append(
            ArchivePrunable(run, index.head.dataset, index.head.ended, index.size_bytes, reason)
        )
    known = {head.run: head for head in local}
    for run in run_numbers(store, ledger):
        if run in archived:
            continue
        if run in known and run not in kept:  # a removal that was interrupted
            size_bytes = sum(store.objects(run_folder(ledger, run)).values())
            head = known[run]
            plan.items.append(
                ArchivePrunable(run, head.dataset, head.ended, size_bytes, "it has no index")
            )
        elif run not in kept:
            plan.unknown.append(run_folder(ledger, run))
    return plan


def prune_archive(
    store: ArchiveStore, ledger: str, local: Sequence[RunHead], keep_days: int, *, apply: bool
) -> ArchivePrunePlan:
    """Find what can go, and remove it if told to."""
    plan = plan_archive_prune(store, ledger, local, keep_days, time.time())
    if apply:
        for item in reversed(plan.items):  # newest first: what is left never misses its base
            folder = run_folder(ledger, item.run)
            store.remove(index_name(ledger, item.run))  # first: half a run is none
            for name in store.objects(folder):
                store.remove(name)
            store.remove_folder(folder)
    return plan
