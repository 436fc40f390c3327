"""Options that say how hard a filesystem may be pressed.

Covers: --threads and --latency-target of `forebay backup` and `forebay scan`.
Does not cover: finding the number of threads (filesystems.kernel).
"""

from __future__ import annotations

from typing import Annotated

import typer

from shards.errors import UsageError
from shards.lease import THREADS_AUTOMATIC, Pacing

AUTOMATIC = "auto"
US_PER_MS = 1000

ThreadsOption = Annotated[
    str | None,
    typer.Option(
        "--threads",
        metavar="auto|N",
        help="Threads that list and stat, at most 256; auto, if nothing is given: as many as help.",
    ),
]
LatencyTargetOption = Annotated[
    float | None,
    typer.Option(
        "--latency-target",
        metavar="MS",
        help="Take fewer threads when the filesystem's answers take longer than so many"
        " milliseconds; 0: only when fewer do as much.",
    ),
]


def parse_pacing(threads: str | None, latency_target_ms: float | None) -> Pacing | None:
    """Return what was asked for, checked; None if nothing was. Raises UsageError."""
    if threads is None and latency_target_ms is None:
        return None
    from filesystems.interface import LATENCY_TARGET_US_MAX

    number = _number(threads or AUTOMATIC)
    target_us = (latency_target_ms or 0) * US_PER_MS
    if not 0 <= target_us <= LATENCY_TARGET_US_MAX:
        raise UsageError(
            f"--latency-target {latency_target_ms:g} is out of range; give 0 to"
            f" {LATENCY_TARGET_US_MAX // US_PER_MS} milliseconds"
        )
    if target_us > 0 and number != THREADS_AUTOMATIC:
        raise UsageError(
            f"--threads {number} stays as it is, so that --latency-target has nothing to say;"
            " leave one of them out"
        )
    return Pacing(number, round(target_us))


def _number(threads: str) -> int:
    from filesystems.interface import THREADS_MAX

    if threads == AUTOMATIC:
        return THREADS_AUTOMATIC
    if not threads.isdecimal() or not 1 <= int(threads) <= THREADS_MAX:
        raise UsageError(f"--threads {threads} is no number of threads; use auto or 1 to 256")
    return int(threads)
