"""The service in a running Ray cluster: a coordinator, a bridge for each mover, kept alive.

Covers: connecting, starting what is not there, replacing what is of another program or
configuration, looking after them, stopping.
Does not cover: whether the nodes are fit (preflight), what the actors do (actors).
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from urllib.parse import urlsplit

import ray
from ray._private.ray_constants import KV_NAMESPACE_SESSION
from ray._private.worker import global_worker
from ray._raylet import GcsClient
from ray.actor import ActorHandle
from ray.exceptions import AuthenticationError, RayError

from actors.bridge import BridgeActor, BridgeSpec
from actors.calls import (
    COORDINATOR,
    NAMESPACE,
    RETRY_S,
    ActorGone,
    ClusterForgotten,
    NamedActor,
    answer,
    gone,
)
from actors.coordinator import CoordinatorActor
from actors.logs import LogSpec
from actors.service import (
    BRIDGE,
    MOVER_LABEL,
    PATIENCE_S,
    WALKER,
    DatasetSpec,
    ServiceSpec,
    end_actors,
    kill_named,
    named_actors,
)
from bacula_bridge.coordinator import RunStatus
from bacula_bridge.run_keeper import ServicePolicy
from bacula_bridge.server import StreamProgress
from cluster.preflight import (
    NodeFacts,
    NodeMissing,
    check_living,
    check_nodes,
    living_movers,
    program_version,
    warnings,
)
from cluster.ray_token import native_silence
from cluster.service_archive import Archiver
from cluster.site_config import SiteConfig
from cluster.sites import site_catalog, site_state
from shards.errors import ForebayError
from shards.lease import Pacing

CONNECT_TIMEOUT_S = 5.0
LOOK_PERIOD_S = 5.0
ABSENT_MAX = 2  # a coordinator is away between its end and its replacement
CLOSE_TIMEOUT_S = 30.0
DRAIN_POLL_S = 1.0
PROGRESS_TIMEOUT_S = 10.0  # Ray may not know yet that a mover is lost


class RayUnreachable(ForebayError):
    """There is no Ray cluster for us at the address: (address, why)."""

    template = (
        "the Ray cluster at {0} cannot be used: {1}; start it (`ray start --head`), or correct"
        " ray.address and ray.token_file"
    )


class TokenWrong(ForebayError):
    """The cluster does not know our token: (address, the file it is in or none)."""

    template = (
        "the Ray cluster at {0} refuses the token: {1}; name the file that the cluster was started"
        " with as ray.token_file"
    )


class NotServing(ForebayError):
    """No service runs in the cluster: (address)."""

    template = "no Forebay service runs in the Ray cluster at {0}; start it with `forebay serve`"


class BridgeBusy(ForebayError):
    """A bridge of another program or configuration cannot be replaced yet: (mover)."""

    template = (
        "the bridge of {0} is of another program or configuration, and has jobs: a `forebay serve`"
        " that stays replaces it when they have ended"
    )


class StillOpen(ForebayError):
    """A graceful stop found no end: (runs, seconds)."""

    template = (
        "run {0} is still open after {1:.0f} s; its jobs go on and no new run begins. Wait longer"
        " with --wait, or end it with --now: its jobs fail, and it can be resumed"
    )


def connect(config: SiteConfig) -> None:
    """Become a driver of the site's Ray cluster; raises what keeps us from that."""
    address = config.ray.address
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S):
            pass
        _check_gcs(config)
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False, logging_level="ERROR")
        _silence_driver()
    except (OSError, RayError, RuntimeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise RayUnreachable(address, reason) from error


def _silence_driver() -> None:
    """Ray says on its drivers' standard output which node it has lost; ours is for data.

    Not public: this ends the thread that does so as ray.shutdown() would.
    """
    global_worker.threads_stopped.set()
    global_worker.gcs_error_subscriber.close()


def _check_gcs(config: SiteConfig) -> None:
    """Ask what ray.init asks for 20 s, without saying in the end what is wrong."""
    try:
        with native_silence():
            session = GcsClient(address=config.ray.address).internal_kv_get(
                b"session_name", KV_NAMESPACE_SESSION, timeout=CONNECT_TIMEOUT_S
            )
    except AuthenticationError as error:
        token = config.ray.token_file
        about = f"that in {token} is not the cluster's" if token else "none is configured"
        raise TokenWrong(config.ray.address, about) from error
    if not session:
        raise ClusterForgotten("the service")


def dashboard_address(config: SiteConfig) -> str:
    return urlsplit(config.ray.dashboard).netloc


def bridge_name(mover: str) -> str:
    return f"{BRIDGE}{mover}"


def _bridge_of(mover: str) -> str:
    return f"the bridge of {mover}"


@dataclass(frozen=True, slots=True)
class BridgeStatus:
    """A mover's bridge, and what it streams; trouble: why it does not answer."""

    mover: str
    streams: tuple[StreamProgress, ...]
    trouble: str = ""


class Service:
    """The service's actors, as one configuration wants them."""

    def __init__(self, config: SiteConfig, say: Callable[[str], None] = lambda text: None) -> None:
        self._config = config
        self._say = say
        text = f"{program_version()} {config.model_dump_json()}"
        self._digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        self._log = LogSpec(config.log.format, config.log.level)
        self._told: dict[str, str] = {}  # what was said last of an actor
        self._lost = ""  # why this one has nothing to look after any more
        self._was_killed = False  # the coordinator, by us
        self._is_draining = False
        self._absent = 0  # looks in a row that found no coordinator

    def start(self) -> None:
        """Check the nodes, start what is not there, and replace what is of another program or
        configuration; raises the first thing that is wrong.
        """
        facts = check_nodes(self._config)
        for warning in warnings(facts):
            self._say(warning)
        self._spec = self._service_spec(facts[self._config.coordinator_mover])
        self._targets = max(
            root.targets for root in facts[self._config.coordinator_mover].roots.values()
        )
        self._replace_coordinator()
        _patiently(self._ensure_coordinator)
        NamedActor(COORDINATOR, "the coordinator").ask("drain", False)
        for mover in self._config.mover:
            try:
                _patiently(partial(self._ensure_bridge, mover.name))
            except BridgeBusy as busy:
                self._say_once(_bridge_of(mover.name), str(busy))
        self._end_strange_bridges()

    def look_after(self, stopping: threading.Event) -> None:
        """Start again what ends, until stopping is set. The actors outlive whoever calls this.

        Returns as well when somebody else has ended the service, or has taken it over. Raises
        ClusterForgotten: nothing can be looked after in that cluster any more.
        """
        archiver = Archiver(self._config, self._say)
        while not stopping.wait(LOOK_PERIOD_S):
            archiver.step()
            self._try("the coordinator", self._look_at_coordinator)
            if self._lost:
                self._say(self._lost)
                return
            if self._is_draining or self._absent:  # `forebay stop`: what it ends stays ended
                continue
            for mover in self._config.mover:
                self._try(_bridge_of(mover.name), partial(self._ensure_bridge, mover.name))

    def _look_at_coordinator(self) -> None:
        actor = self._living(COORDINATOR, "the coordinator")
        if actor is None and not self._was_killed:
            self._absent += 1
            if self._absent >= ABSENT_MAX:
                end_actors(BRIDGE)  # one that this has started while it was stopped
                self._lost = "the service was stopped: there is nothing to look after any more"
            return
        self._absent = 0
        if actor is not None and self._ask(actor.about, "the coordinator") != self._digest:
            self._lost = "another `forebay serve`, with another program or file, has taken over"
            return
        self._ensure_coordinator()
        self._is_draining = NamedActor(COORDINATOR, "the coordinator").ask("draining")

    def _try(self, whom: str, ensure: Callable[[], None]) -> None:
        """Ensure something, and say once what keeps it from being there."""
        try:
            ensure()
        except ClusterForgotten:
            raise
        except ForebayError as error:
            self._say_once(whom, str(error))
            return
        if self._told.pop(whom, ""):
            self._say(f"{whom} is there again")

    def _say_once(self, whom: str, text: str) -> None:
        if self._told.get(whom) != text:
            self._say(text)
            self._told[whom] = text

    def _service_spec(self, facts: NodeFacts) -> ServiceSpec:
        config = self._config
        datasets = tuple(
            DatasetSpec(
                dataset.name,
                f"{facts.roots[dataset.name].adapter}:{facts.roots[dataset.name].mount_type}",
                os.fsencode(dataset.root),
                dataset.shards,
                Pacing(dataset.threads, round(dataset.latency_target_ms * 1000)),
                dataset.hsm,
                dataset.snapshot,
            )
            for dataset in config.dataset
        )
        margins = {name: root.margin_ns for name, root in facts.roots.items()}
        return ServiceSpec(
            ServicePolicy(margins, config.limits.run_idle_s),
            datasets,
            site_state(config),
            config.walker_movers,
            (config.state, *(config.runtime_of(mover.name) for mover in config.mover)),
            config.limits.walker_idle_s,
            self._digest,
            self._log,
        )

    def _replace_coordinator(self) -> None:
        actor = self._living(COORDINATOR, "the coordinator")
        if actor is not None and self._ask(actor.about, "the coordinator") != self._digest:
            self._say("the coordinator is of another program or configuration: it is replaced")
            self._close(COORDINATOR, actor.close)

    def _ensure_coordinator(self) -> None:
        actor = self._living(COORDINATOR, "the coordinator")
        if actor is None:
            actor = CoordinatorActor.options(
                **self._placed(COORDINATOR, self._config.coordinator_mover), max_restarts=-1
            ).remote(
                site_state(self._config), site_catalog(self._config), self._targets, self._spec
            )
        self._open(COORDINATOR, actor, "the coordinator")

    def _ensure_bridge(self, mover: str) -> None:
        name, whom = bridge_name(mover), _bridge_of(mover)
        check_living(mover, living_movers())
        actor = self._living(name, whom)
        if actor is not None and self._ask(actor.about, whom) != self._digest:
            if self._ask(actor.connections, whom):
                raise BridgeBusy(mover)
            self._say(f"{whom} is of another program or configuration: it is replaced")
            self._close(name, actor.stop)
            actor = None
        if actor is None:
            config = self._config
            actor = BridgeActor.options(**self._placed(name, mover), max_restarts=-1).remote(
                BridgeSpec(
                    *(config.socket_of(mover), site_state(config), site_catalog(config), mover),
                    config.limits.join_wait_s,
                    PATIENCE_S,
                    self._digest,
                    self._log,
                )
            )
        self._open(name, actor, whom)

    def _placed(self, name: str, mover: str) -> dict[str, object]:
        return {
            "name": name,
            "namespace": NAMESPACE,
            "lifetime": "detached",
            "get_if_exists": True,
            "label_selector": {MOVER_LABEL: mover},
        }

    def _living(self, name: str, whom: str) -> ActorHandle | None:
        try:
            return ray.get_actor(name, namespace=NAMESPACE)
        except ValueError:
            return None
        except RayError as error:
            raise gone(whom, error) from error

    def _ask(self, method: object, whom: str, *arguments: object) -> object:
        return answer(method.remote(*arguments), whom)  # type: ignore[attr-defined]

    def _open(self, name: str, actor: ActorHandle, whom: str) -> None:
        try:
            answer(actor.open.remote(), whom)
        except ActorGone:
            raise  # it may be restarted at this moment
        except ForebayError:
            kill_named(name)
            self._was_killed = self._was_killed or name == COORDINATOR
            raise
        if name == COORDINATOR:
            self._was_killed = False

    def _end_strange_bridges(self) -> None:
        """End the bridges of movers that are not in the configuration any more."""
        wanted = {bridge_name(mover.name) for mover in self._config.mover}
        for name in named_actors(BRIDGE):
            actor = self._living(name, name) if name not in wanted else None
            if actor is None:
                continue
            if self._ask(actor.connections, name):
                self._say(f"{name}: no such mover is configured, but it has jobs: it is left alone")
            else:
                self._close(name, actor.stop)

    def _close(self, name: str, close: object) -> None:
        with contextlib.suppress(RayError):
            ray.get(close.remote(), timeout=CLOSE_TIMEOUT_S)  # type: ignore[attr-defined]
        kill_named(name)


def _patiently(ensure: Callable[[], None]) -> None:
    """Ensure an actor; one that was replaced may still have its name, on its way out."""
    deadline = time.monotonic() + CLOSE_TIMEOUT_S
    while True:
        try:
            ensure()
            return
        except ClusterForgotten:
            raise
        except ActorGone:
            if time.monotonic() >= deadline:
                raise
        time.sleep(RETRY_S)


def open_runs(config: SiteConfig) -> list[RunStatus]:
    """Return the runs that the service has open; NotServing if there is no service."""
    return _coordinator(config).ask("open_runs")


def is_draining(config: SiteConfig) -> bool:
    """Tell whether the service opens no more runs: `forebay stop` waits, or was given up."""
    return _coordinator(config).ask("draining")


def bridges(config: SiteConfig) -> list[BridgeStatus]:
    """Return what each mover's bridge streams."""
    found, living = [], living_movers()
    for mover in config.mover:
        asked = NamedActor(bridge_name(mover.name), _bridge_of(mover.name))
        try:
            check_living(mover.name, living)
            streams = asked.ask("progress", timeout_s=PROGRESS_TIMEOUT_S)
            found.append(BridgeStatus(mover.name, tuple(streams)))
        except (ActorGone, NodeMissing) as error:
            found.append(BridgeStatus(mover.name, (), str(error)))
    return found


def stop(config: SiteConfig, wait_s: float, now: bool, say: Callable[[str], None]) -> bool:
    """End the service, after its open runs unless it is to be now; False if none ran."""
    try:
        ray.get_actor(COORDINATOR, namespace=NAMESPACE)
    except ValueError:
        return False
    coordinator = NamedActor(COORDINATOR, "the coordinator")
    deadline = time.monotonic() + wait_s
    while not now and (runs := coordinator.ask("drain")):
        if time.monotonic() >= deadline:
            raise StillOpen(", ".join(map(str, runs)), wait_s)
        say(f"waiting for run {', '.join(map(str, runs))} to end")
        time.sleep(min(DRAIN_POLL_S, max(0.0, deadline - time.monotonic())))
    names = [bridge_name(mover.name) for mover in config.mover]
    with contextlib.suppress(ForebayError):
        coordinator.ask("drain")  # whoever looks after the service lets go of it
    for name, method in [*((name, "stop") for name in names), (COORDINATOR, "close")]:
        with contextlib.suppress(ForebayError):
            NamedActor(name, name).ask(method)
        kill_named(name)
    end_actors(WALKER)
    return True


def _coordinator(config: SiteConfig) -> NamedActor:
    try:
        ray.get_actor(COORDINATOR, namespace=NAMESPACE)
    except ValueError as error:
        raise NotServing(config.ray.address) from error
    return NamedActor(COORDINATOR, "the coordinator")
