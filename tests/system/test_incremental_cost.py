"""An incremental with a change reader costs as much as what has changed, not as the tree.

Covers: metadata system calls of all processes on the tree, by strace. Counts, no times.
Does not cover: calls elsewhere (Python's modules, /proc, the state directory), whose number
depends on the time that a run takes and on what else runs on the machine.
"""

import pytest

from benchmarks.incremental_calls import TREE, traced
from benchmarks.system_calls import why_untraceable
from benchmarks.watched_tree import DIRECTORIES, why_unwatchable

pytestmark = [pytest.mark.bacula, pytest.mark.ray]

FILES = 19_800  # with their directories 20,000 inodes
FEW, MANY = 100, 300
# open, stat and listxattr of the File Daemon, stat of the walker.
CALLS_PER_FILE_MAX = 4
# The reader may see one change in two events, and then asks where its directory is once more.
TOLERANCE = 0.2


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
    # The tree has 200 directories, of which the changes are in 20: nothing else is listed, and of
    # those no names are read either.
    assert on_tree(cost.constant, "getdents64") == 0
    assert on_tree(cost.constant) < FILES / 10
    assert on_tree(cost.constant) / DIRECTORIES < 50
