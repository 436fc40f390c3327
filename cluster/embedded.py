"""Ray on this machine alone, for the length of one command.

Covers: starting it with a token of its own, the actors of one run, ending everything again.
Does not cover: a site's cluster that runs on its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.bridge import BridgeActor, BridgeSpec
from actors.calls import COORDINATOR, NAMESPACE, ActorGone, answer
from actors.coordinator import CoordinatorActor
from actors.walker import WalkerActor, WalkerSpec
from bacula_bridge.catalog import Catalog
from bacula_bridge.lab import catalog_path
from cluster.settings import Settings
from filesystems.detect import open_filesystem
from filesystems.interface import Filesystem
from shards.errors import ForebayError

OBJECT_STORE_BYTES = 100 << 20  # control messages only; Ray refuses less than 75 MiB
STOP_TIMEOUT_S = 15.0
RAY_FOLDERS = ("ray", "ray2")  # a busy machine may be too slow for Ray at first
WALKER_RESTARTS_MAX = 5


class AnotherRuns(ForebayError):
    """One command with a Ray of its own at a time."""

    template = (
        "another forebay backup runs from {0}; wait until it has ended, or set FOREBAY_HOME to"
        " another folder"
    )


class RayNotStarted(ForebayError):
    """The local Ray did not come up."""

    template = "Ray did not start on this machine: {0}; `forebay doctor` tells what is missing"


class RayTooSlow(RayNotStarted):
    """The local Ray was not up in the time that it gives itself."""

    template = (
        "Ray did not come up in time on this machine: {0}; run it again when the machine is less"
        " busy"
    )


class _Interruption:
    """Ctrl-C and SIGTERM: jobs cancelled, run closed, daemons and Ray stopped.

    Ray has handlers of its own, which end the process without any clean-up. An exception that a
    handler raises is lost if it happens to come up in a destructor or a callback, so that the
    signal is remembered too.
    """

    def __init__(self) -> None:
        self._number = 0
        self._before: dict[int, Any] = {}

    def install(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._take)

    def restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before.clear()

    def _take(self, number: int, _frame: FrameType | None) -> None:
        self._number = number
        raise SystemExit(128 + number)

    def check(self) -> None:
        """Raise once more if a signal came and its exception got lost."""
        if self._number:
            number, self._number = self._number, 0
            raise SystemExit(128 + number)

    def taken(self) -> None:
        """Forget the signal: its exception has arrived."""
        self._number = 0


def target_label(target: int) -> str:
    """Name the node label of a node that serves a metadata target."""
    return f"forebay-target-{target}"


class EmbeddedCluster:
    """Coordinator, bridge and walkers in a private Ray; a context manager."""

    def __init__(
        self,
        settings: Settings,
        targets: int = 1,
        open_filesystem: Callable[[bytes], Filesystem] = open_filesystem,
    ) -> None:
        self._settings = settings
        self._targets = targets
        self._open_filesystem = open_filesystem
        self._serving: dict[ray.ObjectRef[None], int] = {}
        self._restarts = 0
        self._lock = -1
        self._interruption = _Interruption()
        self.coordinator: ActorHandle
        self.bridge: ActorHandle
        self.walkers: list[ActorHandle] = []

    def __enter__(self) -> EmbeddedCluster:
        self._take_lock()
        try:
            self._start_ray()
            self._start_actors()
        except BaseException:
            self._shut_down()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._interruption.taken()
        for stop in (*(walker.stop for walker in self.walkers), self.bridge.stop):
            self._ask(stop)
        self._ask(self.coordinator.close)
        self._shut_down()

    def _take_lock(self) -> None:
        """Before anything of another command's Ray could be touched."""
        self._settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        self._lock = os.open(self._settings.home / "ray.lock", flags, mode=0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise AnotherRuns(str(self._settings.home)) from error

    def _start_ray(self) -> None:
        assert os.environ.get("RAY_AUTH_MODE") == "token", "prepare_private_ray() was not called"
        self._settings.make_runtime()
        self._remove_ray()  # of a command that was killed
        try:
            self._init_ray(RAY_FOLDERS[0])
        except RayTooSlow:
            ray.shutdown()  # what came up so far ends with this process
            self._init_ray(RAY_FOLDERS[1])
        self._interruption.install()

    def _init_ray(self, folder: str) -> None:
        try:
            ray.init(
                address="local",
                namespace=NAMESPACE,
                include_dashboard=False,
                labels={target_label(target): "true" for target in range(self._targets)},
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level="ERROR",
                _temp_dir=str(self._settings.runtime / folder),
            )
        except (RayError, OSError, ValueError, ConnectionError, RuntimeError) as error:
            raise RayNotStarted(str(error).splitlines()[0] if str(error) else error) from error
        except Exception as error:
            if type(error) is not Exception:
                raise
            raise RayTooSlow(str(error).splitlines()[0]) from error  # Ray has no class for it

    def _start_actors(self) -> None:
        settings = self._settings
        catalog = Catalog(catalog_path(settings.lab))
        self.coordinator = CoordinatorActor.options(name=COORDINATOR).remote(
            settings.state, catalog, self._targets
        )
        answer(self.coordinator.open.remote(), "the coordinator")
        self.bridge = BridgeActor.options(name="bridge").remote(
            BridgeSpec(settings.socket, settings.state, catalog)
        )
        answer(self.bridge.open.remote(), "the bridge")
        self._start_walkers()

    def _start_walkers(self) -> None:
        settings = self._settings
        excluded = (settings.home, settings.runtime)
        labelled = {label for node in ray.nodes() if node["Alive"] for label in node["Labels"]}
        for target in range(self._targets):
            label = target_label(target)
            if label not in labelled:  # Ray would wait for such a node for ever
                raise RayNotStarted(f"no node has the label {label}")
            walker = WalkerActor.options(
                name=f"walker-{target}", label_selector={label: "true"}
            ).remote(
                WalkerSpec(COORDINATOR, target, settings.state, excluded), self._open_filesystem
            )
            self.walkers.append(walker)
            self._serve(target)

    def _serve(self, target: int) -> None:
        self._serving[self.walkers[target].serve.remote()] = target

    def check_interruption(self) -> None:
        """Raise SystemExit if a signal asked for the end and that was lost."""
        self._interruption.check()

    def check_walkers(self) -> None:
        """Send a walker that Ray restarted back to work; ForebayError when it keeps dying."""
        if not self._serving:
            return
        ended, _ = ray.wait(list(self._serving), num_returns=len(self._serving), timeout=0)
        for reference in ended:
            target = self._serving.pop(reference)
            try:
                answer(reference, f"walker {target}")
            except ActorGone:
                self._restarts += 1
                if self._restarts > WALKER_RESTARTS_MAX:
                    raise
            self._serve(target)

    def _ask(self, method: object) -> None:
        """Call a method of an actor that may be gone."""
        try:
            ray.get(method.remote(), timeout=STOP_TIMEOUT_S)  # type: ignore[attr-defined]
        except RayError:
            return

    def _shut_down(self) -> None:
        ray.shutdown()
        self._interruption.restore()
        self._remove_runtime()
        os.close(self._lock)

    def _remove_ray(self) -> None:
        for folder in RAY_FOLDERS:
            shutil.rmtree(self._settings.runtime / folder, ignore_errors=True)

    def _remove_runtime(self) -> None:
        """Remove what is ours, and the folder if nothing else is in it."""
        self._remove_ray()
        self._settings.socket.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self._settings.runtime.rmdir()
