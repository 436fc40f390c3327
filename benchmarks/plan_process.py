"""Plan an incremental in this process, without Ray or Bacula, and print what each step took.

Covers: opening the run, its leases, the bases and the plan, by the product's own classes; what is
planned is checked against what the caller has changed.
Does not cover: streaming it; the run ends with no job, so that the next one builds on the same.
"""

import argparse
import dataclasses
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bacula_bridge.bases import BaseFinder
from bacula_bridge.catalog import Catalog
from bacula_bridge.chain import INCREMENTAL
from bacula_bridge.coordinator import Coordinator
from bacula_bridge.lab import catalog_path
from bacula_bridge.planner import Planner
from bacula_bridge.protocol import Hello
from bacula_bridge.render import job_name
from cluster.settings import Settings
from filesystems.change_sources import change_source
from filesystems.detect import detect, timestamp_margin_ns
from filesystems.lease_walker import LeaseWalker
from shards.ledger import Ledger, Run
from shards.plan import Manifest
from shards.segment import SegmentStore
from shards.state import StateDirectory

ROLE = "walker:0"


@dataclasses.dataclass(slots=True)
class Steps:
    """Wall and CPU seconds by step."""

    figures: dict[str, float] = dataclasses.field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Measure what is inside; a step that comes again adds up."""
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        for key, spent in (
            (f"{name}_wall_s", time.perf_counter() - wall),
            (f"{name}_cpu_s", time.process_time() - cpu),
        ):
            self.figures[key] = self.figures.get(key, 0.0) + spent


def main() -> None:
    """Plan one incremental of a dataset that has a Full."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path, help="the FOREBAY_HOME that the dataset is in")
    parser.add_argument("dataset")
    arguments = parser.parse_args()
    settings, name = Settings(arguments.home), arguments.dataset
    state, catalog = settings.state, Catalog(catalog_path(settings.lab))
    steps = Steps()
    coordinator = Coordinator(
        state,
        catalog,
        lambda dataset: change_source(state.changes(dataset.name), dataset.name, dataset.root),
    )
    try:
        run = _looked(coordinator, state, name, steps)
        names = _planned(coordinator, state, catalog, run, steps)
        coordinator.end_run(run.number)
    finally:
        coordinator.close()
    everywhere = run.since is None
    print(json.dumps({"names": names, "everywhere": everywhere, "note": run.note, **steps.figures}))


def _looked(coordinator: Coordinator, state: StateDirectory, name: str, steps: Steps) -> Run:
    """Open a run and do all its leases."""
    root = _root(state, name)
    margin_ns = timestamp_margin_ns(detect(root).type_name)
    with steps.step("open"):
        run = coordinator.open_run(name, "incremental", margin_ns)
    assert run.level == "incremental", run.note
    epoch = coordinator.take_epoch(ROLE)
    walker = LeaseWalker(detect(root).filesystem)
    while True:
        with steps.step("look"):
            lease = coordinator.take_lease(0, ROLE, epoch, 0.0)
            if lease is None:
                break
            result = walker.walk(lease, state.segments(run.number)).result()
            coordinator.commit_lease(lease.number, ROLE, epoch, result)
    walker.close()
    return run


def _planned(
    coordinator: Coordinator, state: StateDirectory, catalog: Catalog, run: Run, steps: Steps
) -> int:
    """Find the bases and plan as the first job's stream does; return how many names go."""
    ledger = Ledger(state.ledger, read_only=True)
    planner = Planner(state, catalog)
    try:
        finder = BaseFinder(ledger, catalog)
        newest = finder.chains(run.dataset, run.shards)[0][-1]
        job = job_name(run.dataset, 0)
        hello = Hello(
            INCREMENTAL, 0, run.shards, 0, newest.tdate, run.dataset, job, newest.unique_name, ""
        )
        with steps.step("views"):
            base = finder.find(run, hello).base
            assert base is not None
            views = planner.views(base, 0, run.root)
        with steps.step("plan"):
            page = coordinator.segments(run.number, 0, 0.0)
            infos = page.infos
            while page.infos:
                page = coordinator.segments(run.number, infos[-1].number, 0.0)
                infos += page.infos
            assert page.scan_ended
            store = SegmentStore(state.segments(run.number))
            manifest = Manifest(store, infos, run.shards, run.seed)
            scope = None if page.everywhere else coordinator.scope(run.number)
            made = planner.plan(run.number, 0, manifest, scope, views, lambda: None)
    finally:
        ledger.close()
    return sum(info.rows for info in made.infos)


def _root(state: StateDirectory, name: str) -> bytes:
    ledger = Ledger(state.ledger, read_only=True)
    try:
        dataset = ledger.dataset(name)
    finally:
        ledger.close()
    assert dataset is not None, f"there is no dataset {name}"
    return dataset.root


if __name__ == "__main__":
    main()
