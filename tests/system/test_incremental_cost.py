"""An incremental with a change reader costs as much as what has changed, not as the tree.

Covers: metadata system calls of all processes below the root, by strace. Counts, no times.
Does not cover: calls elsewhere (Python's modules, /proc, the state directory), whose number
depends on the time that a run takes and on what else runs on the machine.
"""

import pytest

from benchmarks.incremental_calls import TREE, traced
from benchmarks.system_calls import why_untraceable
from benchmarks.watched_tree import DIRECTORIES, why_unwatchable

pytestmark = [pytest.mark.bacula, pytest.mark.ray]

FILES = 5_940  # with their directories 6,000 inodes
FEW, MANY = 100, 300
# open, stat and listxattr of the File Daemon, stat of the walker.
CALLS_PER_FILE_MAX = 4
# The reader asks where a directory is once for each batch of events, at most ten times a second.
TOLERANCE = 0.2
CALLS_PER_DIRECTORY_MAX = 20  # opened by the walker; found by its handle by reader and coordinator


@pytest.fixture(scope="module")
def cost(tmp_path_factory):
    if why := why_unwatchable() or why_untraceable():
        pytest.skip(why)
    (found,) = traced(tmp_path_factory.mktemp("cost") / "traced", FILES, FEW, MANY, rounds=1)
    return found


def on_tree(counts, kind=None):
    return sum(
        number
        for call, number in counts.items()
        if call.place == TREE and kind in (None, call.kind)
    )


def test_a_changed_file_costs_four_calls(cost):
    assert on_tree(cost.each) <= CALLS_PER_FILE_MAX + TOLERANCE, cost.each
    assert on_tree(cost.each, "open") >= 1 - TOLERANCE  # else the trace has missed the plugin


def test_the_rest_does_not_grow_with_the_tree(cost):
    # The tree has 60 directories. Changes are in 20; none is listed, no other one is asked for.
    assert on_tree(cost.constant, "getdents64") == on_tree(cost.each, "getdents64") == 0
    assert on_tree(cost.constant) < CALLS_PER_DIRECTORY_MAX * DIRECTORIES
