"""Real histories: random changes and backups of all levels; every restore gives the tree of then.

FOREBAY_HISTORIES=n plays n histories instead of 4, FOREBAY_HISTORIES_FIRST=s begins with seed s.
"""

import contextlib
import os
import random

import pytest

from cluster.records import GOOD_RUNS
from tests.support.bulk import remove_tree
from tests.support.change_histories import mount, running_reader
from tests.support.compare import take_snapshot
from tests.support.history import TreeHistory
from tests.system.site import running_site

pytestmark = pytest.mark.bacula

FIRST = int(os.environ.get("FOREBAY_HISTORIES_FIRST", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("FOREBAY_HISTORIES", "4")))
SOURCES = ("scan", "fanotify")
SHARDS = (3, 4, 1)
FIRST_NAMES = 40
BACKUPS = (4, 6)
CHANGES = (10, 40)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("home")) as site:
        yield site


@contextlib.contextmanager
def watched(site, name, folder):
    """Yield a folder on a filesystem of its own that a change reader follows."""
    mounted = folder / "mounted"
    mounted.mkdir()
    root = mounted / "tree"
    with mount("ext4", mounted, folder / "image"):
        try:
            yield (
                mounted,
                lambda: running_reader(
                    name,
                    os.fsencode(root),
                    site.settings.state.changes(name),
                ),
            )
        finally:
            remove_tree(root)


@contextlib.contextmanager
def tree_of(site, source, name, folder, seed):
    """Yield a tree with a history, and with its change source running."""
    if source == "scan":
        yield TreeHistory(folder / "tree", folder / "outside", seed)
        return
    with watched(site, name, folder) as (mounted, reader):
        history = TreeHistory(mounted / "tree", mounted / "outside", seed)
        with reader():
            yield history


@pytest.mark.parametrize("seed", SEEDS)
def test_every_restore_gives_the_tree_as_it_was(site, tmp_path, seed):
    source = SOURCES[seed % len(SOURCES)]
    if source == "fanotify" and os.geteuid() != 0:
        pytest.skip("fanotify marks a filesystem for root only")
    shards = SHARDS[seed // len(SOURCES) % len(SHARDS)]
    chosen = random.Random(seed)
    name = f"history{seed}"
    with tree_of(site, source, name, tmp_path, seed) as history:
        root = tmp_path / ("tree" if source == "scan" else "mounted/tree")
        history.grow(FIRST_NAMES)
        for number in range(chosen.randint(*BACKUPS)):
            level = "full" if number == 0 else chosen.choice(LEVELS)
            taken = take_snapshot(root)
            record = site.backup(root, name, shards, level)
            told = f"seed {seed}, run {record.run.number} ({level}), {history.log}"
            assert record.run.state in GOOD_RUNS, f"{told}: {record.run.reason}"
            if source == "fanotify" and level != "full":
                assert record.run.since is not None, f"{told}: {record.run.note}"
            try:
                site.check(record, taken, tmp_path / "restored")
            except AssertionError as error:
                raise AssertionError(f"{told}: {error}") from error
            history.play(chosen.randint(*CHANGES))


LEVELS = ("incremental", "incremental", "incremental", "differential", "full")
