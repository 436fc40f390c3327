"""Plans of incremental jobs, made once for all shards of a run that this bridge serves.

Covers: the views that a job is compared with, whatever state their files are in; which jobs can
share one comparison; waiting for one that another stream is making.
Does not cover: the comparison (shards.plan), the socket (server).
"""

from __future__ import annotations

import contextlib
import dataclasses
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bacula_bridge.catalog import Catalog
from bacula_bridge.source import Base, Scope
from shards import plan
from shards.errors import ForebayError
from shards.files import make_private_folder
from shards.receipts import ReceiptsDamaged
from shards.segment import SegmentInfo, SegmentStore
from shards.state import StateDirectory
from shards.view import ChainLink, View, ViewStore

WAIT_S = 0.5  # how often a stream that waits for another one's plan looks after its own job

Chain = tuple[ChainLink, ...]


@dataclass(frozen=True, slots=True)
class Views:
    """What a job is compared with, and what had to be done to get it."""

    base: View
    currents: dict[int, View]
    note: str


@dataclass(frozen=True, slots=True)
class JobPlan:
    """The segments that one job sends."""

    infos: tuple[SegmentInfo, ...]
    store: SegmentStore


class Planner:
    """One per bridge; safe for many threads."""

    def __init__(self, state: StateDirectory, catalog: Catalog) -> None:
        self._state = state
        self._catalog = catalog
        self._changed = threading.Condition()
        self._busy: set[int] = set()  # runs for which a plan is being made
        # By run, shard, base, and whether everything was looked at: a run may be widened.
        self._plans: dict[tuple[int, int, Chain, bool], JobPlan] = {}

    def views(self, base: Base, shard: int, root: bytes) -> Views:
        """Open the views of all shards, from the catalog's names where receipts are no more."""
        store = ViewStore(self._state, lambda jobid: catalog_names(self._catalog, root, jobid))
        notes: list[str] = []
        currents = {
            number: _view(store, chain, notes)
            for number, chain in enumerate(base.currents)
            if chain
        }
        # One object where it is one chain: the comparison then reads it once.
        is_current = base.currents[shard] == base.chain
        own = currents[shard] if is_current else _view(store, base.chain, notes)
        return Views(own, currents, "; ".join(dict.fromkeys(notes)))

    def prepare(self, link: ChainLink) -> None:
        """Make the layer of a job that has just ended; whoever needs it later makes it else."""
        with contextlib.suppress(ForebayError, OSError):
            ViewStore(self._state).view((link,))

    def plan(
        self,
        run: int,
        shard: int,
        manifest: plan.Manifest,
        scope: Scope | None,
        views: Views,
        tick: Callable[[], None],
    ) -> JobPlan:
        """Return what a job sends; tick is called now and then and may raise."""
        key = (run, shard, views.base.links, scope is None)
        with self._changed:
            while key not in self._plans and run in self._busy:
                self._changed.wait(WAIT_S)
                tick()
            if key in self._plans:
                return self._plans[key]
            self._busy.add(run)
        try:
            made = self._make(run, shard, manifest, scope, views, tick)
        finally:
            with self._changed:
                self._busy.discard(run)
                self._changed.notify_all()
        return made

    def _make(
        self,
        run: int,
        shard: int,
        manifest: plan.Manifest,
        scope: Scope | None,
        views: Views,
        tick: Callable[[], None],
    ) -> JobPlan:
        bases = {shard: views.base}
        if views.currents.get(shard) is views.base:  # an Incremental, as the others will be
            bases = dict(views.currents)
        folder = self._folder(run)
        where = plan.EVERYWHERE if scope is None else plan.Scope(scope.names, scope.subtrees)
        infos = tuple(plan.make_plan(manifest, where, bases, views.currents, folder, tick))
        made = JobPlan(infos, SegmentStore(folder))
        with self._changed:
            for key in [key for key in self._plans if key[0] != run]:
                del self._plans[key]
            for number, view in bases.items():
                self._plans[run, number, view.links, scope is None] = made
        return made

    def _folder(self, run: int) -> Path:
        folder = self._state.plans(run) / secrets.token_hex(8)
        make_private_folder(folder)
        return folder


def _view(store: ViewStore, chain: Chain, notes: list[str]) -> View:
    """Open a view; where receipts are no more, names come from the catalog, and that is noted."""
    notes += [
        f"JobId {link.jobid} is not in the run ledger: its names come from the catalog, and all"
        " that it saved is sent again"
        for link in chain
        if link.receipts is None
    ]
    try:
        return store.view(chain)
    except ReceiptsDamaged:
        return store.view([_without_damage(store, link, notes) for link in chain])


def _without_damage(store: ViewStore, link: ChainLink, notes: list[str]) -> ChainLink:
    try:
        store.view((link,))
    except ReceiptsDamaged as error:
        notes.append(f"{error}: all that it saved is sent again")
        return dataclasses.replace(link, receipts=None)
    return link


def catalog_names(catalog: Catalog, root: bytes, jobid: int) -> Iterator[tuple[bytes, bool, int]]:
    """Yield what the catalog has of a job: path below the root, is it a directory, FileIndex."""
    prefix = root.rstrip(b"/") + b"/"
    for row in catalog.files(jobid):
        if row.path.startswith(prefix):
            path = row.path[len(prefix) :]
            yield path.removesuffix(b"/"), row.path.endswith(b"/"), row.file_index
