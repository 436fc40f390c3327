"""The rule of what a job sends, against a model of Bacula, over random histories.

FOREBAY_HISTORIES_MODEL=n plays n histories instead of 2,000. A failure names its seed:
`python -m tests.unit.shards.test_decision_model SEED` plays that one history again.
"""

import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from shards.decision import Decision, decide
from tests.support.model import FileRow, ModelJob, base, select
from tests.support.model_run import History, Rule, WrongTree

HISTORIES = int(os.environ.get("FOREBAY_HISTORIES_MODEL", "2000"))
SEEDS_AT_ONCE = 50
BROKEN_HISTORIES_MAX = 600


def play(seeds, rule=None, kinds=()):
    """Play histories; return what the first wrong one says, or None, and what was checked."""
    checked = names = 0
    for seed in seeds:
        history = History(seed, rule, kinds)
        try:
            history.play()
        except WrongTree as error:
            return str(error), checked, names
        checked += history.checked
        names += history.names_checked
    return None, checked, names


@pytest.mark.timeout(60 + HISTORIES)
def test_a_restore_gives_the_tree_after_any_history():
    parts = [
        range(first, min(first + SEEDS_AT_ONCE, HISTORIES))
        for first in range(0, HISTORIES, SEEDS_AT_ONCE)
    ]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        results = list(pool.map(play, parts))
    wrong = [text for text, _, _ in results if text is not None]
    assert not wrong, f"{len(wrong)} wrong histories, the first: {wrong[0]}"
    assert sum(checked for _, checked, _ in results) > 3 * HISTORIES
    assert sum(names for _, _, names in results) > 15 * HISTORIES


# Rules that are wrong. The histories above are worth something only if they find each of them.


class BrokenRule(Rule):
    checks_views = False


class DeletesWhatAnotherShardHas(BrokenRule):
    """Each shard looks at its own part of the tree only."""

    def decide(self, tree, bases, currents, unlisted):
        send = np.zeros(tree.num_rows, dtype=bool)
        linked, deleted = [], {}
        for shard, view in bases.items():
            is_own = tree.column("shard").to_numpy() == shard
            own = tree.filter(pa.array(is_own))
            decision = decide(own, {shard: view}, currents, unlisted)
            send[is_own] |= decision.send
            linked.append(decision.linked)
            deleted |= decision.deleted
        return Decision(send, np.concatenate(linked), deleted)


class IgnoresWhatOtherShardsSaid(BrokenRule):
    """A shard is content if its own view has the entry."""

    def decide(self, tree, bases, currents, unlisted):
        return decide(tree, bases, {}, unlisted)


class SendsOnlyTheNamesThatChanged(BrokenRule):
    """A hard link goes without the other names of its inode."""

    def sends_link(self, row, goes, linked):
        return goes


class ForgetsTheFirstName(BrokenRule):
    """A hard link whose first name has left the tree stays as it was saved."""

    def decide(self, tree, bases, currents, unlisted):
        decision = super().decide(tree, bases, currents, unlisted)
        several = (tree.column("nlink").to_numpy() > 1) & (tree.column("error").to_numpy() == 0)
        inodes = tree.column("ino").to_numpy()[decision.send & several]
        return Decision(decision.send, np.unique(inodes), decision.deleted)


def without_due(batch):
    place = batch.schema.get_field_index("due")
    return batch.set_column(
        place, batch.schema.field(place), pa.array([False] * batch.num_rows, pa.bool_())
    )


class ForgetsWhatIsDue(BrokenRule):
    """What could not be read, or changed while it was read, is taken for saved."""

    def decide(self, tree, bases, currents, unlisted):
        bases = {shard: without_due(view) for shard, view in bases.items()}
        return decide(tree, bases, currents, unlisted)


class TrustsYoungEntries(BrokenRule):
    """A change within the same tick of the filesystem's clock is not reckoned with."""

    def layer(self, job, margin_ns):
        return super().layer(job, -(10**18))


class DeletesWhatCouldNotBeListed(BrokenRule):
    """A directory that cannot be listed is taken for empty."""

    def decide(self, tree, bases, currents, unlisted):
        return decide(tree, bases, currents, [])


class NeverDeletes(BrokenRule):
    """What is gone stays in the view."""

    def decide(self, tree, bases, currents, unlisted):
        decision = super().decide(tree, bases, currents, unlisted)
        nothing = {shard: rows[:0] for shard, rows in decision.deleted.items()}
        return Decision(decision.send, decision.linked, nothing)


class ComparesADifferentialWithTheWholeChain(BrokenRule):
    """What the Incrementals since the Full have saved is not saved by a Differential again."""

    def bases(self, jobs, shard, level):
        ran_as, chain = base(jobs, shard, level)
        return ran_as, base(jobs, shard, "I")[1] if ran_as == "D" else chain


class CountsFailedJobs(BrokenRule):
    """What a failed job has sent is taken for saved."""

    def bases(self, jobs, shard, level):
        ran_as, chain = base(jobs, shard, level)
        if not chain:
            return ran_as, chain
        later = [job for job in jobs if job.shard == shard and job.jobid > chain[-1].jobid]
        return ran_as, [*chain, *(job for job in later if job.level != "F")]


class ComparesSizeAndTimeOnly(BrokenRule):
    """A file is unchanged if size and mtime are."""

    def decide(self, tree, bases, currents, unlisted):
        def blurred(batch):
            for name in ("ctime", "ino"):
                place = batch.schema.get_field_index(name)
                zeros = pa.array([0] * batch.num_rows, batch.schema.field(place).type)
                batch = batch.set_column(place, batch.schema.field(place), zeros)
            return batch

        decision = super().decide(tree, bases, currents, unlisted)
        blind = decide(blurred(tree), {k: blurred(v) for k, v in bases.items()}, currents, unlisted)
        return Decision(blind.send, decision.linked, decision.deleted)


class LetsTheFirstListingCount(BrokenRule):
    """A name listed twice counts as it was seen first, in whatever shard."""

    def fold(self, layers):
        merged = pa.concat_batches(layers) if layers else super().fold(layers)
        order = pc.sort_indices(merged, sort_keys=[("key", "ascending")])
        rows = merged.take(order)
        keys = rows.column("key").to_pylist()
        first = [place for place, key in enumerate(keys) if not place or keys[place - 1] != key]
        return rows.take(pa.array(first, pa.int64()))


class OverlooksAHoleInTheChain(BrokenRule):
    """Changes since the last job of a chain are enough, though a job before it is gone."""

    def is_whole(self, jobs):
        return True


# Some need several changes of one kind in order: histories of those alone find them sooner.
BROKEN_RULES = [
    (DeletesWhatAnotherShardHas, ()),
    (IgnoresWhatOtherShardsSaid, ("exchange", "exchange_back")),
    (SendsOnlyTheNamesThatChanged, ()),
    (ForgetsTheFirstName, ("link", "move_out")),
    (ForgetsWhatIsDue, ()),
    (TrustsYoungEntries, ("write_and_put_mtime_back", "set_content_only")),
    (DeletesWhatCouldNotBeListed, ()),
    (NeverDeletes, ()),
    (ComparesADifferentialWithTheWholeChain, ()),
    (CountsFailedJobs, ()),
    (ComparesSizeAndTimeOnly, ()),
    (LetsTheFirstListingCount, ()),
    (OverlooksAHoleInTheChain, ("write_file", "set_content_only")),
]


@pytest.mark.parametrize(("rule", "kinds"), BROKEN_RULES)
def test_a_broken_rule_is_found(rule, kinds):
    wrong, _, _ = play(range(BROKEN_HISTORIES_MAX), rule(), kinds)
    assert wrong is not None, f"{BROKEN_HISTORIES_MAX} histories do not find it"


# The model of Bacula's selection itself


def row(jobid, tdate, index, *, deleted=False, link=0, name=b"n"):
    return FileRow(name, jobid, tdate, index, deleted, link)


@pytest.mark.parametrize(
    ("rows", "chosen"),
    [
        ([row(1, 10, 5), row(2, 11, 1)], (2, 1)),
        ([row(2, 11, 1), row(1, 10, 5)], (2, 1)),
        ([row(2, 10, 1), row(1, 11, 5)], (1, 5)),  # the end counts, not the number
        ([row(1, 10, 5), row(2, 11, 1, deleted=True)], None),
        ([row(1, 10, 5, deleted=True), row(2, 11, 1)], (2, 1)),
        ([row(1, 10, 5), row(2, 10, 6, deleted=True)], (1, 5)),  # the same second
        ([row(1, 10, 5), row(2, 10, 4)], (1, 5)),
        ([row(1, 10, 1), row(1, 10, 2)], (1, 2)),
        ([row(1, 10, 1), row(1, 10, 2, link=1)], (1, 1)),
        ([row(1, 10, 2, link=1), row(1, 10, 3)], (1, 3)),
        ([row(1, 10, 1, deleted=True), row(1, 10, 2)], (1, 2)),
    ],
)
def test_the_model_selects_as_bacula_does(rows, chosen):
    found = select(rows).get(b"n")
    assert (found and (found.jobid, found.file_index)) == chosen


def test_a_chain_is_a_full_a_differential_and_what_came_after():
    levels = {1: "F", 2: "I", 3: "F", 4: "I", 5: "D", 6: "I", 7: "D", 8: "I", 9: "I"}
    jobs = [ModelJob(jobid, 0, level, jobid, good=jobid != 7) for jobid, level in levels.items()]
    assert [job.jobid for job in base(jobs, 0, "I")[1]] == [3, 5, 6, 8, 9]
    assert [job.jobid for job in base(jobs, 0, "D")[1]] == [3]
    assert base(jobs, 0, "F") == ("F", [])
    assert base(jobs, 1, "I") == ("F", [])


if __name__ == "__main__":
    print(play([int(sys.argv[1])])[0] or "the tree comes back")
