"""Calls between actors: one place where Ray's errors become ours.

Covers: waiting for an answer with a bound, unwrapping errors, an actor that comes back.
Does not cover: what may be asked twice; whoever asks knows.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.actor import ActorHandle
from ray.exceptions import GetTimeoutError, RayError, RayTaskError

from shards.errors import ForebayError
from shards.ledger import LedgerClosed

NAMESPACE = "forebay"
COORDINATOR = "coordinator"
CALL_TIMEOUT_S = 120.0
RETRY_S = 0.5
OPEN_AGAIN_S = 5.0
_LOG = logging.getLogger("forebay.actors")
_FORGOTTEN = "WrongClusterID"  # what Ray's clients are told by a GCS that began anew

Answer = TypeVar("Answer")


class ActorGone(ForebayError):
    """An actor did not answer; whoever asked starts again from what is committed."""

    template = "{0} did not answer: {1}; look at the Ray logs of this run"


class ClusterForgotten(ActorGone):
    """Ray's GCS was restarted and has forgotten the cluster: (what was asked)."""

    template = (
        "{0} cannot be found: Ray's GCS was restarted and knows nothing of its nodes and actors any"
        " more; restart Ray on all nodes, then `forebay serve`: open runs go on, and jobs that fail"
        " meanwhile can be run again"
    )


class ActorStarting(ForebayError):
    """An actor was restarted and has not opened what it works on; whoever asked asks again."""

    template = "{0} is being started; ask again in a moment"


def gone(whom: str, error: Exception) -> ActorGone:
    """Return what Ray's error means for whoever asked."""
    text = str(error).strip() or type(error).__name__
    if _FORGOTTEN in text:
        return ClusterForgotten(whom)
    return ActorGone(whom, text.splitlines()[0])


def answer(
    reference: ray.ObjectRef[Answer],
    whom: str,
    wait_s: float = 0.0,
    timeout_s: float = CALL_TIMEOUT_S,
) -> Answer:
    """Return the answer, or raise the error that the other side raised.

    wait_s: how long the other side may wait for news, timeout_s: how long all else may take.
    """
    try:
        return ray.get(reference, timeout=timeout_s + wait_s)
    except RayTaskError as error:
        if isinstance(error.cause, LedgerClosed):  # it ends, and another one comes
            raise ActorStarting(whom) from None
        if isinstance(error.cause, ForebayError):
            raise error.cause from None
        raise
    except GetTimeoutError as error:
        raise ActorGone(whom, f"nothing came within {timeout_s + wait_s:.0f} s") from error
    except RayError as error:
        raise gone(whom, error) from error


def open_again(open_it: Callable[[], None], whom: str) -> None:
    """Open an actor that Ray has started again: nobody else may be there to do it.

    Called in its __init__. What keeps it from opening is logged, and tried again.
    """
    if not ray.get_runtime_context().was_current_actor_reconstructed:
        return

    def run() -> None:
        said = ""
        while True:
            try:
                open_it()
                return
            except ForebayError as error:
                if str(error) != said:
                    _LOG.error("%s cannot be opened again: %s", whom, error)
                said = str(error)
            time.sleep(OPEN_AGAIN_S)

    threading.Thread(target=run, name="open-again", daemon=True).start()


class NamedActor:
    """An actor by its name. One that is restarted, or replaced, is asked again for a while."""

    def __init__(self, name: str, whom: str, patience_s: float = 0.0) -> None:
        """patience_s: for how long a call is repeated while nobody answers."""
        self._name = name
        self._whom = whom
        self._patience_s = patience_s
        self._handle: ActorHandle | None = None

    def ask(
        self,
        method: str,
        *arguments: object,
        wait_s: float = 0.0,
        timeout_s: float = CALL_TIMEOUT_S,
        again: tuple[object, ...] | None = None,
    ) -> Any:
        """Call a method; again: the arguments of a call that repeats one whose answer was lost."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                reference = getattr(self._found(), method).remote(*arguments)
                return answer(reference, self._whom, wait_s, timeout_s)
            except (ActorGone, ActorStarting):
                self._handle = None
                if time.monotonic() >= deadline:
                    raise
            arguments = arguments if again is None else again
            time.sleep(RETRY_S)

    def _found(self) -> ActorHandle:
        if self._handle is None:
            try:
                self._handle = ray.get_actor(self._name, namespace=NAMESPACE)
            except (ValueError, RayError) as error:
                raise gone(self._whom, error) from error
        return self._handle
