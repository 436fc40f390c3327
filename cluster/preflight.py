"""What all nodes are asked before the service starts anything.

Covers: labels, versions, the state directory and whose it is, the datasets' roots, the folders for
sockets, whether the catalog can be asked.
Does not cover: the rest of Bacula's side (`forebay bacula check`).
"""

from __future__ import annotations

import os
import platform
import secrets
import socket
import stat
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import ray
from ray.exceptions import RayError

from actors.calls import gone
from actors.service import MOVER_LABEL
from bacula_bridge.catalog import Catalog
from cluster.site_config import SiteConfig
from cluster.sites import site_catalog, site_state
from filesystems.detect import detect, timestamp_margin_ns
from shards.capabilities import cannot_read_all
from shards.errors import ForebayError
from shards.ledger_home import check_place

LOOK_TIMEOUT_S = 60.0
PROBE_BYTES = 16


class NodeMissing(ForebayError):
    """Ray has no such node: (mover, label, those there are)."""

    template = (
        "no living node of the Ray cluster is mover {0}: none has the label {1}={0} (there are:"
        " {2}); start Ray there with --labels {1}={0}, or correct [[mover]]"
    )


class NodesDiffer(ForebayError):
    """A node is not as it must be: (mover, what, what to do)."""

    template = "mover {0}: {1}; {2}"


@dataclass(frozen=True, slots=True)
class Root:
    """A dataset's root as a node sees it."""

    error: str  # empty: it is there
    inode: int = 0
    adapter: str = ""
    mount_type: str = ""
    targets: int = 1
    margin_ns: int = 0


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What a node says of itself."""

    host: str
    forebay: str
    python: str
    user: int
    probe: str  # what the probe in the state directory says there; empty: it is not there
    roots: Mapping[str, Root]
    runtime: str  # what is wrong with the folder for the socket; empty: nothing
    unread: str = ""  # why files of others may not be saved; empty: they are
    catalog: str = ""  # why the catalog cannot be asked there; empty: it can


def program_version() -> str:
    """The version of Forebay, and of Python: both are to be the same on all nodes."""
    return version("forebay")


def look(roots: Mapping[str, str], runtime: str, probe: str, catalog: Catalog) -> NodeFacts:
    """Look at this node. Runs on a mover, as the user that Ray runs as there."""
    try:
        said = Path(probe).read_text(encoding="ascii")
    except OSError:
        said = ""
    return NodeFacts(
        socket.gethostname(),
        program_version(),
        platform.python_version(),
        os.geteuid(),
        said,
        {name: _root(root) for name, root in roots.items()},
        _make_runtime(Path(runtime)),
        cannot_read_all(),
        _asked(catalog),
    )


def _asked(catalog: Catalog) -> str:
    try:
        catalog.check()
    except ForebayError as error:
        return str(error)
    return ""


def _root(root: str) -> Root:
    try:
        found = detect(root)
        inode = os.stat(root).st_ino
    except (ForebayError, OSError) as error:
        return Root(str(error))
    return Root(
        "",
        inode,
        found.filesystem.name,
        found.type_name,
        len(found.filesystem.targets()),
        timestamp_margin_ns(found.type_name),
    )


def _make_runtime(folder: Path) -> str:
    """Make the folder for the socket, for this user alone; say what is wrong with it."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        status = os.lstat(folder)
    except OSError as error:
        return f"{folder} cannot be made: {error.strerror}"
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        return f"{folder} is not a folder of user {os.geteuid()}"
    if status.st_mode & 0o022:
        return f"{folder} can be written to by others"
    return ""


def check_nodes(config: SiteConfig) -> dict[str, NodeFacts]:
    """Ask all movers; return what they say, or raise the first thing that is wrong."""
    _check_labels([mover.name for mover in config.mover])
    probe = config.state / f".probe-{secrets.token_hex(4)}"
    said = secrets.token_hex(PROBE_BYTES)
    first, catalog = config.coordinator_mover, site_catalog(config)
    _ask(first, [(first, _write_probe, (str(probe), said))])
    try:
        # Now, while a coordinator that is to be replaced still runs.
        _ask(first, [(first, check_place, (site_state(config),))])
        facts = _ask(
            "the movers",
            [
                (mover.name, look, (_roots(config, mover.name), str(runtime), str(probe), catalog))
                for mover in config.mover
                for runtime in [config.runtime_of(mover.name)]
            ],
        )
    finally:
        _ask(first, [(first, _remove_probe, (str(probe),))])
    found = {mover.name: fact for mover, fact in zip(config.mover, facts, strict=True)}
    assert all(isinstance(fact, NodeFacts) for fact in found.values())
    _compare(config, found, said)  # type: ignore[arg-type]
    return found  # type: ignore[return-value]


def warnings(found: Mapping[str, NodeFacts]) -> list[str]:
    """What the service can run with, but an administrator should know of."""
    return [
        f"mover {name}: Ray's {facts.unread}: names that it may not list are not saved; start Ray"
        " as root or with that capability"
        for name, facts in found.items()
        if facts.unread
    ]


def _roots(config: SiteConfig, mover: str) -> dict[str, str]:
    return {
        dataset.name: str(dataset.root)
        for dataset in config.dataset
        if mover in (each.name for each in config.movers_of(dataset))
    }


def living_movers() -> list[str]:
    """Return the labels of the cluster's living nodes."""
    try:
        labels = [node["Labels"].get(MOVER_LABEL) for node in ray.nodes() if node["Alive"]]
    except RayError as error:
        raise gone("the list of Ray's nodes", error) from error
    return sorted(label for label in labels if label)


def check_living(mover: str, living: Sequence[str]) -> None:
    """Raise NodeMissing for a mover that is none of them: a call to its actors would wait."""
    if mover not in living:
        raise NodeMissing(mover, MOVER_LABEL, ", ".join(living) or "none")


def _check_labels(movers: Sequence[str]) -> None:
    there = living_movers()
    for mover in movers:
        check_living(mover, there)
        if there.count(mover) > 1:
            where = f"{there.count(mover)} living nodes have its label"
            raise NodesDiffer(mover, where, "give each node a name of its own")


def _ask(whom: str, questions: Sequence[tuple[str, object, tuple[object, ...]]]) -> list[object]:
    """Run functions on movers, each on its own; NodesDiffer if one does not answer."""
    references = [
        ray.remote(num_cpus=0, max_retries=0)(function)  # type: ignore[call-overload]
        .options(label_selector={MOVER_LABEL: mover})
        .remote(*arguments)
        for mover, function, arguments in questions
    ]
    try:
        return list(ray.get(references, timeout=LOOK_TIMEOUT_S))
    except RayError as error:
        cause = getattr(error, "cause", None)
        if isinstance(cause, ForebayError):
            raise cause from None
        text = str(cause or error).strip().splitlines()
        doing = "see that Forebay is installed there as here, and Ray's logs"
        raise NodesDiffer(whom, text[-1] if text else type(error).__name__, doing) from error


def _write_probe(path: str, text: str) -> None:
    folder = Path(path).parent
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        Path(path).write_text(text, encoding="ascii")
    except OSError as error:
        what = f"the state directory {folder} cannot be written to: {error.strerror}"
        raise NodesDiffer("of the coordinator", what, "mend that, or change state =") from error


def _remove_probe(path: str) -> None:
    with suppress(OSError):
        Path(path).unlink(missing_ok=True)


def _compare(config: SiteConfig, found: Mapping[str, NodeFacts], probe: str) -> None:
    first = found[config.coordinator_mover]
    ours = program_version()
    for name, facts in found.items():
        if facts.forebay != ours or facts.python != platform.python_version():
            what = f"it has Forebay {facts.forebay} on Python {facts.python}"
            doing = f"install {ours} on {platform.python_version()} there"
            raise NodesDiffer(name, what, doing)
        if facts.user != first.user:
            what = f"Ray runs as user {facts.user} there, and as {first.user} elsewhere"
            raise NodesDiffer(name, what, "run it as one user everywhere: files have mode 0600")
        if facts.probe != probe:
            what = f"{config.state} is not the directory that {config.coordinator_mover} has there"
            raise NodesDiffer(name, what, "mount the shared state directory at the same path")
        if facts.runtime:
            raise NodesDiffer(name, facts.runtime, "correct runtime = or that folder")
        if facts.catalog:
            doing = "let it ask the Director's catalog, which every mover does"
            raise NodesDiffer(name, facts.catalog, doing)
        for dataset, root in facts.roots.items():
            _compare_root(name, config, dataset, root, first.roots[dataset])


def _compare_root(name: str, config: SiteConfig, dataset: str, root: Root, first: Root) -> None:
    path = config.dataset_named(dataset).root
    if root.error:
        raise NodesDiffer(
            name, f"dataset {dataset}: {root.error}", "mount it there, or correct root"
        )
    if (root.inode, root.mount_type) != (first.inode, first.mount_type):
        what = (
            f"dataset {dataset}: {path} is inode {root.inode} of {root.mount_type} there, and inode"
            f" {first.inode} of {first.mount_type} on {config.coordinator_mover}"
        )
        raise NodesDiffer(name, what, "mount the same filesystem at the same path on all movers")
