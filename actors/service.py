"""The service's part of the coordinator's actor: its datasets, and walkers while there is work.

Covers: the datasets' definitions, starting a walker where the trees are seen, ending idle ones.
Does not cover: what a walker does (walker), who gets which lease (bacula_bridge.coordinator).
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.calls import COORDINATOR, NAMESPACE, ActorGone, answer
from actors.logs import LogSpec
from actors.walker import WalkerActor, WalkerSpec
from bacula_bridge.coordinator import Coordinator
from bacula_bridge.run_keeper import ServicePolicy
from filesystems.detect import open_filesystem
from shards.errors import ForebayError
from shards.lease import Pacing
from shards.ledger_schema import HsmPolicy
from shards.state import StateDirectory

_LOG = logging.getLogger("forebay.coordinator")
MOVER_LABEL = "forebay-mover"
WALKER, BRIDGE = "walker-", "bridge-"  # how the names of their actors begin
STARTS_MAX = 5  # of walkers in a row, before the scans that need them are given up
STAYED_S = 60.0  # a walker that lived so long begins a new row
PATIENCE_S = 45.0  # the plugin gives up after 60 s of silence


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """A dataset as the configuration has it, looked at on the coordinator's node."""

    name: str
    filesystem: str  # ADAPTER:MOUNT_TYPE
    root: bytes
    shards: int
    pacing: Pacing
    hsm: HsmPolicy
    snapshot: bool


@dataclass(frozen=True, slots=True)
class ServiceSpec:
    """What the coordinator of a service is told."""

    policy: ServicePolicy
    datasets: tuple[DatasetSpec, ...]
    state: StateDirectory
    movers: tuple[str, ...]  # that see every dataset: walkers may run there
    excluded: tuple[Path, ...]  # folders that scans leave out: our own
    walker_idle_s: float
    digest: str  # of program and configuration
    log: LogSpec

    def define(self, coordinator: Coordinator) -> None:
        """Make the datasets what the configuration says."""
        for each in self.datasets:
            coordinator.define_dataset(
                *(each.name, each.filesystem, each.root, each.shards),
                *(each.pacing, each.hsm, each.snapshot),
            )


class WalkerPool:
    """The walkers of a service; one thread of the coordinator owns it."""

    def __init__(self, service: ServiceSpec, coordinator: Coordinator) -> None:
        self._service = service
        self._coordinator = coordinator
        self._walkers: dict[int, ActorHandle] = {}
        self._serving: dict[ray.ObjectRef[None], int] = {}
        self._started: dict[int, float] = {}
        self._starts: dict[int, int] = {}  # since a walker last stayed
        self._busy = time.monotonic()
        end_actors(WALKER)  # of a coordinator before, perhaps of another program
        coordinator.walkers_ended()

    def step(self) -> None:
        """Start the walkers that are needed, send restarted ones to work, end idle ones."""
        needed = self._coordinator.targets_with_work()
        if needed or self._coordinator.open_runs():
            self._busy = time.monotonic()
        elif self._walkers and time.monotonic() - self._busy > self._service.walker_idle_s:
            self.stop()
        self._check()
        for target in needed:
            if target not in self._walkers:
                with contextlib.suppress(RayError):  # of a GCS that is restarted: the next step
                    self._start(target)

    def stop(self) -> None:
        """End all walkers: no run is open, or the coordinator ends."""
        for walker in self._walkers.values():
            with contextlib.suppress(ActorGone):
                answer(walker.stop.remote(), "a walker")
            _kill(walker)
        self._walkers.clear()
        self._serving.clear()
        self._starts.clear()

    def _check(self) -> None:
        if not self._serving:
            return
        ended, _ = ray.wait(list(self._serving), num_returns=len(self._serving), timeout=0)
        for reference in ended:
            target = self._serving.pop(reference)
            walker = self._walkers.pop(target)
            try:
                answer(reference, f"the walker of target {target}")
            except (ForebayError, RayError) as error:  # it is gone, or has met a bug
                if time.monotonic() - self._started[target] > STAYED_S:
                    self._starts.pop(target, None)
                self._gone(target, (str(error).strip().splitlines() or ["it ended"])[-1])
                continue
            _kill(walker)

    def _gone(self, target: int, reason: str) -> None:
        """A walker died; the next step starts another one, unless that goes on and on."""
        _LOG.warning("the walker of target %s ended: %s", target, reason)
        self._starts[target] = self._starts.get(target, 0) + 1
        if self._starts[target] >= STARTS_MAX:
            self._starts.pop(target)
            for status in self._coordinator.open_runs():
                if status.run.scan_ended is None:
                    self._coordinator.fail_run(status.run.number, f"the scan failed: {reason}")

    def _start(self, target: int) -> None:
        movers = self._movers_of(target)
        spec = WalkerSpec(
            COORDINATOR,
            target,
            self._service.state,
            self._service.excluded,
            PATIENCE_S,
            self._service.log,
        )
        walker = WalkerActor.options(
            name=f"{WALKER}{target}",
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            label_selector={MOVER_LABEL: movers[0]},
            fallback_strategy=[{"label_selector": {MOVER_LABEL: f"in({','.join(movers)})"}}],
        ).remote(spec, open_filesystem)
        self._walkers[target] = walker
        self._started[target] = time.monotonic()
        self._serving[walker.serve.remote()] = target

    def _movers_of(self, target: int) -> Sequence[str]:
        """The movers in the order in which this target's walker would like them."""
        movers = self._service.movers
        first = target % len(movers)
        return (*movers[first:], *movers[:first])


def _kill(walker: ActorHandle) -> None:
    with contextlib.suppress(RayError):  # the GCS is away: an idle walker stays
        ray.kill(walker, no_restart=True)


def end_actors(prefix: str) -> None:
    """End our named actors whose names begin so, for good."""
    for name in named_actors(prefix):
        kill_named(name)


def named_actors(prefix: str) -> list[str]:
    """Return the names of our actors that begin so; none if the GCS is away."""
    try:
        found = ray.util.list_named_actors(all_namespaces=True)
    except RayError:
        return []
    names = [each["name"] for each in found if each["namespace"] == NAMESPACE]
    return [name for name in names if name.startswith(prefix)]


def kill_named(name: str) -> bool:
    """End a named actor for good; False if there is none."""
    try:
        ray.kill(ray.get_actor(name, namespace=NAMESPACE), no_restart=True)
    except (ValueError, RayError):
        return False
    return True
