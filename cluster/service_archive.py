"""Runs of a service go to the archive as they end.

Covers: asking the coordinator's node, which has the ledger, now and then; saying once what fails.
Does not cover: archiving (cluster.archive).
"""

from __future__ import annotations

import time
from collections.abc import Callable

import ray
from ray.exceptions import GetTimeoutError, RayError

from actors.service import MOVER_LABEL
from cluster.archive.saving import archive_runs, local_heads
from cluster.archive.setup import site_setup
from cluster.site_config import SiteConfig
from shards.errors import ForebayError

PERIOD_S = 15.0


def archive_ended(config: SiteConfig, after: int) -> tuple[int, list[str]]:
    """Archive the runs that ended and have a number above; return the last one, and what failed.

    Runs where the ledger is.
    """
    setup = site_setup(config)
    numbers = [head.run for head in local_heads(setup.state) if head.run > after]
    if not numbers:
        return after, []
    try:
        report = archive_runs(setup.state, setup.store(), numbers, keep_days=setup.keep_days)
    except ForebayError as error:
        return after, [str(error)]
    if report.failed:
        return report.failed[0][0] - 1, [sentence for _, sentence in report.failed]
    return numbers[-1], []


class Archiver:
    """One per `forebay serve`; step() never waits."""

    def __init__(self, config: SiteConfig, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._done = 0  # runs up to this number are in the archive
        self._asked = float("-inf")
        self._answer: ray.ObjectRef[tuple[int, list[str]]] | None = None
        self._told: list[str] = []

    def step(self) -> None:
        """Take the last answer, if it is there; ask again when it is time."""
        if self._config.archive is None:
            return
        if self._answer is not None:
            self._take()
        elif time.monotonic() - self._asked >= PERIOD_S:
            self._asked = time.monotonic()
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
        if failed != self._told:
            for sentence in failed or ["runs are archived again"]:
                self._say(sentence)
        self._told = failed
