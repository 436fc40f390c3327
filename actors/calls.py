"""Calls between actors: one place where Ray's errors become ours.

Covers: waiting for an answer with a bound, unwrapping errors.
Does not cover: retries; the caller asks again from committed state.
"""

from __future__ import annotations

from typing import TypeVar

import ray
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from shards.errors import ForebayError

CALL_TIMEOUT_S = 120.0

Answer = TypeVar("Answer")


class ActorGone(ForebayError):
    """An actor did not answer; whoever asked starts again from what is committed."""

    template = "{0} did not answer: {1}; look at the Ray logs of this run"


def answer(reference: ray.ObjectRef[Answer], whom: str, wait_s: float = 0.0) -> Answer:
    """Return the answer, or raise the error that the other side raised."""
    try:
        return ray.get(reference, timeout=CALL_TIMEOUT_S + wait_s)
    except RayTaskError as error:
        if isinstance(error.cause, ForebayError):
            raise error.cause from None
        raise
    except GetTimeoutError as error:
        raise ActorGone(whom, f"nothing came within {CALL_TIMEOUT_S + wait_s:.0f} s") from error
    except RayError as error:
        raise ActorGone(whom, str(error).splitlines()[0]) from error
