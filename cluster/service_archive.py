"""Runs of a service go to the archive as they end.

Covers: asking the coordinator's node, which has the ledger, now and then; saying once what fails.
Does not cover: archiving (cluster.archive).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import ray
from ray.exceptions import GetTimeoutError, RayError

from actors.service import MOVER_LABEL
from cluster.archive.errors import ArchiveUnavailable, NothingToArchive
from cluster.archive.saving import archive_run, ended_runs, worth_archiving
from cluster.archive.setup import site_setup
from cluster.site_config import SiteConfig
from shards.errors import ForebayError

PERIOD_S = 15.0
# A run that fails is read and copied anew each time: the period doubles up to this.
RETRY_MAX_S = 3600.0


def archive_ended(
    config: SiteConfig, done: Mapping[int, float]
) -> tuple[dict[int, float], list[str]]:
    """Archive the runs that ended since; return those that are done with, and what failed.

    Done with: when each run ended that is in the archive or is not worth it. One that goes on
    later ends at another time, and is looked at again. Runs where the ledger is.
    """
    setup = site_setup(config)
    try:
        ended = ended_runs(setup.state)
        if ended == done:
            return dict(done), []
        wanted = [
            run
            for run in worth_archiving(setup.state, setup.keep_days)
            if done.get(run) != ended.get(run)
        ]
        looked = {run: when for run, when in ended.items() if run not in wanted}
        store = setup.store()
    except ForebayError as error:
        return dict(done), [str(error)]
    failed = []
    for run in wanted:
        try:
            archive_run(setup.state, store, run)
        except NothingToArchive:
            pass  # pruned, or open again, since it was looked at
        except ForebayError as error:
            failed.append(str(error))
            if isinstance(error, ArchiveUnavailable):
                break
            continue
        looked[run] = ended[run]
    return looked, failed


class Archiver:
    """One per `forebay serve`; step() never waits."""

    def __init__(self, config: SiteConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._done: dict[int, float] = {}
        self._due = float("-inf")
        self._wait_s = PERIOD_S
        self._answer: ray.ObjectRef[tuple[dict[int, float], list[str]]] | None = None
        self._told: list[str] = []

    def step(self) -> None:
        """Take the last answer, if it is there; ask again when it is time."""
        if self._config.archive is None:
            return
        if self._answer is not None:
            self._take()
        elif time.monotonic() >= self._due:
            task = ray.remote(num_cpus=0, max_retries=0)(archive_ended)
            where = {MOVER_LABEL: self._config.coordinator_mover}
            self._answer = task.options(label_selector=where).remote(self._config, self._done)

    def _take(self) -> None:
        assert self._answer is not None
        try:
            self._done, failed = ray.get(self._answer, timeout=0)
        except GetTimeoutError:
            return
        except RayError as error:
            failed = [f"runs could not be archived: {str(error).strip().splitlines()[-1]}"]
        self._answer = None
        self._wait_s = min(2 * self._wait_s, RETRY_MAX_S) if failed else PERIOD_S
        self._due = time.monotonic() + self._wait_s
        if failed != self._told:
            for sentence in failed or ["runs are archived again"]:
                self._say(sentence)
        self._told = failed
