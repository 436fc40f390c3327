"""Random histories on a real CephFS by two clients, and whether recursive change times cover them.

Run as a program in the mount namespace of a cluster. Several histories are played at once, each in
a directory of its own, because each look has to wait until change times have settled.
"""

import argparse
import stat
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from filesystems.cephfs.rctime import RctimeSource
from shards.changed_directories import compare
from shards.changes import ChangeSet, Position
from shards.shard_function import mix64_column
from tests.support.change_histories import Entry, History, missed, snapshot
from tests.support.snapshot_view import SnapshotView

SHARDS = 3
TURNS = 3
MARGIN_S = 1.0  # one clock, and small: what did not change between two turns is to be left out
# What is written through a mapping is in the client's memory until it is written back: neither
# another client nor the metadata server knows of it.
UNSEEN = ("write_mapped", "write_by_handle")

Snapshot = dict[bytes, Entry]


@dataclass
class Play:
    """One history, and the moments at which it was looked at."""

    name: str
    mounts: Sequence[Path]
    seed: int
    moments: list[tuple[Position, Snapshot]] = field(default_factory=list)

    def __post_init__(self) -> None:
        for place in ("root", "outside"):
            Path(self.mounts[0], self.name, place).mkdir(parents=True)
        self.history = History(*self._places(0), self.seed, UNSEEN)
        self.root = self._places(0)[0]

    def _places(self, client: int) -> tuple[bytes, bytes]:
        base = self.mounts[client] / self.name
        return bytes(base / "root"), bytes(base / "outside")

    def play(self, steps: int) -> None:
        """Make changes, by one client after the other."""
        while steps > 0:
            client = self.history.random.randrange(len(self.mounts))
            self.history.root, self.history.outside = self._places(client)
            some = min(steps, self.history.random.choice([1, 2, 5]))
            self.history.play(some)
            steps -= some

    def begin_turn(self) -> None:
        """Take the position and what it stands for, then change something."""
        position = RctimeSource(self.root, margin_s=MARGIN_S).position()
        self.moments.append((position, snapshot_without_sizes(self.root)))
        self.play(self.history.random.choice([1, 3, 10, 60]))

    def look(self) -> list[str]:
        """Return a sentence for each moment since which something is not covered."""
        source = RctimeSource(self.root, margin_s=MARGIN_S)
        source.position()
        wrong = []
        for place, (since, before) in enumerate(self.moments):
            changes = source.changes(since)
            after = snapshot_without_sizes(self.root)
            newest = self.moments[-1][1]
            for what, had in (
                ("", [before] * SHARDS),
                # The first shard's last job is the newest one, the others' an older one.
                (" (shards apart)", [newest, *[before] * (SHARDS - 1)]),
            ):
                looked = with_listed(changes, had, distrust_changed=newest is not before)
                for shard, names in enumerate(had):
                    if left := missed(_part(names, shard), _part(after, shard), looked):
                        wrong.append(f"seed {self.seed}{what}, {place}: {left[:4]}")
        return wrong


def snapshot_without_sizes(root: bytes) -> Snapshot:
    """Take a snapshot without directories' sizes: those are ceph.dir.rbytes, which come later."""
    return {
        path: (*entry[:5], 0, *entry[6:]) if stat.S_ISDIR(entry[2]) else entry
        for path, entry in snapshot(root).items()
    }


def with_listed(
    changes: ChangeSet, had: Sequence[Snapshot], *, distrust_changed: bool = False
) -> ChangeSet:
    """Add what follows from listed directories, by what each shard's jobs have."""
    views = [_view(_part(names, shard)) for shard, names in enumerate(had)]
    names, subtrees = compare(changes.directories, [views], distrust_changed=distrust_changed)
    return ChangeSet([*changes.names, *names], sorted(subtrees), changes.inodes)


def _part(names: Snapshot, shard: int) -> Snapshot:
    """Return what is one shard's."""
    inodes = np.array([entry[0] for entry in names.values()], dtype=np.uint64)
    is_own = mix64_column(inodes, 0) % np.uint64(SHARDS) == shard
    return {
        path: entry
        for (path, entry), own in zip(names.items(), is_own.tolist(), strict=True)
        if own
    }


def _view(names: Snapshot) -> SnapshotView:
    return SnapshotView({path: (entry[0], stat.S_ISDIR(entry[2])) for path, entry in names.items()})


def main() -> int:
    """Play, print what was missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("mounts", type=Path, nargs="+")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seeds", type=int, default=2)
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    plays = [Play(f"history-{seed}", arguments.mounts, seed) for seed in seeds]
    wrong: list[str] = []
    with ThreadPoolExecutor(len(plays)) as pool:
        for play in plays:
            play.history.play(40)
        for _ in range(TURNS):
            for play in plays:
                play.begin_turn()
            for found in pool.map(Play.look, plays):
                wrong += found
    for play in plays:
        play.history.close()
        print(f"seed {play.seed}: {len(play.history.log)} changes", file=sys.stderr)
    for sentence in wrong:
        print(sentence)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
