"""A tree that changes all through its backups: once it is still, an incremental is exact again."""

import threading

import pytest

from cluster.records import GOOD_RUNS
from tests.support.bulk import make_uniform
from tests.support.compare import take_snapshot
from tests.support.history import TreeHistory
from tests.system.site import running_site

pytestmark = pytest.mark.bacula

TREES = 12
FILES = 2_000
CHANGES_MIN = 100  # that must have been made while a backup ran
SHARDS = 3


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("home")) as site:
        yield site


class Writer:
    """Renames, creates and deletes in a thread of its own until it is stopped."""

    def __init__(self, histories):
        self._histories = histories
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._write)

    def _write(self):
        while not self._ending.is_set():
            for history in self._histories:
                history.play(1)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ending.set()
        self._thread.join()

    @property
    def count(self):
        return sum(len(history.log) for history in self._histories)


@pytest.mark.parametrize("source", ["scan", "fanotify"])
def test_a_tree_that_changes_all_the_time_is_exact_once_it_is_still(site, tmp_path, source):
    name = f"changing-{source}"
    with site.place(source, name, tmp_path) as (folder, reader):
        root = folder / "tree"
        make_uniform(root, FILES, 50, 500)
        # What one of them moves out of its part of the tree another one moves in.
        places = sorted(path for path in root.glob("*/*") if path.is_dir())[:TREES]
        histories = [
            TreeHistory(place / "busy", root / "between", seed) for seed, place in enumerate(places)
        ]
        for history in histories:
            history.grow(30)
        with reader():
            warnings = 0
            for level in ("full", "incremental", "incremental"):
                with Writer(histories) as writer:
                    before = writer.count
                    record = site.backup(root, name, SHARDS, level)
                    changes = writer.count - before
                assert record.run.state in GOOD_RUNS, record.run.reason
                assert changes > CHANGES_MIN
                warnings += sum(job.summary.warnings for job in record.jobs)
            assert warnings, "no change was made between the scan of a name and its reading"
            for _ in range(2):
                taken = take_snapshot(root)
                record = site.backup(root, name, SHARDS, "incremental")
                assert record.run.state in GOOD_RUNS, record.run.reason
                site.check(record, taken, tmp_path / "restored")
