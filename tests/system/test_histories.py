"""Real histories: random changes and backups of all levels; every restore gives the tree of then.

FOREBAY_HISTORIES=n plays n histories instead of 2, FOREBAY_HISTORIES_FIRST=s begins with seed s.
"""

import os
import random

import pytest

from cluster.records import GOOD_RUNS
from tests.support.compare import take_snapshot
from tests.support.history import TreeHistory
from tests.system.site import running_site

pytestmark = pytest.mark.bacula

FIRST = int(os.environ.get("FOREBAY_HISTORIES_FIRST", "0"))
SEEDS = range(FIRST, FIRST + int(os.environ.get("FOREBAY_HISTORIES", "2")))
SOURCES = ("scan", "fanotify")
SHARDS = (3, 4, 1)
FIRST_NAMES = 40
BACKUPS = (4, 6)
CHANGES = (10, 40)
LEVELS = ("incremental", "incremental", "incremental", "differential", "full")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    with running_site(tmp_path_factory.mktemp("home")) as site:
        yield site


@pytest.mark.parametrize("seed", SEEDS)
def test_every_restore_gives_the_tree_as_it_was(site, tmp_path, seed):
    source = SOURCES[seed % len(SOURCES)]
    shards = SHARDS[seed // len(SOURCES) % len(SHARDS)]
    chosen = random.Random(seed)
    name = f"history{seed}"
    with site.place(source, name, tmp_path) as (folder, reader):
        root = folder / "tree"
        history = TreeHistory(root, folder / "outside", seed)
        history.grow(FIRST_NAMES)
        with reader():
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
