"""A plan sends what the rule says: whole trees, some names of them, hard links, deletions."""

import stat

import pyarrow as pa
import pytest

from shards import plan as plan_module
from shards.order import stream_rows
from shards.plan import EVERYWHERE, Manifest, Scope, make_plan
from shards.receipts import ReceiptsWriter
from shards.schema import RECEIPT_SCHEMA, ReceiptStatus, RowFlag
from shards.segment import SegmentStore, write_segment
from shards.state import StateDirectory
from shards.view import ChainLink, ViewStore
from tests.support.rows import directory, grouped, row

SEED = 7
LATER_NS = 10**12


class Site:
    """Runs without Bacula: what a plan streams is taken for saved."""

    def __init__(self, folder, shards=3):
        self.state = StateDirectory(folder)
        self.shards = shards
        self.chains = dict.fromkeys(range(shards), ())
        self.jobid = 0
        self.run = 0

    def manifest(self, *parts):
        """Write each part of a tree as a segment."""
        self.run += 1
        self.state.make_run(self.run)
        folder = self.state.segments(self.run)
        infos = []
        for number, rows in enumerate(parts):
            batch, counts = grouped(rows, self.shards, SEED)
            name = f"{number}.arrow"
            infos.append(write_segment(folder, name, batch, counts, run=1, lease=1, epoch=1))
        return Manifest(SegmentStore(folder), tuple(infos), self.shards, SEED)

    def views(self):
        store = ViewStore(self.state)
        return {shard: store.view(chain) for shard, chain in self.chains.items()}

    def plan(self, manifest, scope=EVERYWHERE):
        """Return each shard's stream as rows, in order."""
        views = self.views()
        folder = self.state.plans(self.run)
        folder.mkdir(parents=True, exist_ok=True)
        made = folder / f"{len(list(folder.iterdir()))}"
        made.mkdir()
        infos = make_plan(manifest, scope, views, views, made)
        store = SegmentStore(made)
        return {
            shard: [
                each
                for batch in stream_rows(store, iter([infos]), shard, SEED)
                for each in batch.to_pylist()
            ]
            for shard in range(self.shards)
        }

    def save(self, streams, unread=()):
        """Write the receipts of jobs that sent these streams, and add them to the chains."""
        for shard, rows in streams.items():
            self.jobid += 1
            writer = ReceiptsWriter(self.state.receipts(self.run), shard, self.jobid)
            last_inode = None
            receipts = []
            for number, each in enumerate(rows):
                is_link = each["nlink"] > 1 and each["ino"] == last_inode
                receipts.append(receipt(number, each, is_link, each["path"] in unread))
                is_linkable = each["nlink"] > 1 and not stat.S_ISDIR(each["mode"])
                last_inode = each["ino"] if is_linkable else None
            writer.write(pa.RecordBatch.from_pylist(receipts, schema=RECEIPT_SCHEMA))
            link = ChainLink(self.run, shard, self.jobid, 100 * self.run, writer.commit(), 0)
            self.chains[shard] += (link,)


def receipt(number, values, is_link, is_unread):
    made = dict.fromkeys(RECEIPT_SCHEMA.names, 0)
    made |= {name: values[name] for name in ("ino", "size", "mode", "uid", "gid", "nlink", "rdev")}
    status = ReceiptStatus.LINK if is_link else ReceiptStatus.SAVED
    if values["flags"] & RowFlag.DELETED:
        status = ReceiptStatus.DELETED
    elif is_unread:
        status = ReceiptStatus.UNREADABLE
    made |= {
        "number": number,
        "path": values["path"],
        "status": int(status),
        "file_index": 0 if is_unread else number + 1,
        "hash": b"\0" * 16,
        "mtime_s": values["mtime"] // 10**9,
        "mtime_ns": values["mtime"] % 10**9,
        "ctime_s": values["ctime"] // 10**9,
        "ctime_ns": values["ctime"] % 10**9,
        "read_ns": LATER_NS,
    }
    return made


def names(streams):
    """Return what goes, deletions marked with a minus."""
    return sorted(
        (b"-" if each["flags"] & RowFlag.DELETED else b"") + each["path"]
        for rows in streams.values()
        for each in rows
    )


def changed(rows, path, **others):
    return [dict(each, **others) if each["path"] == path else each for each in rows]


@pytest.fixture
def site(tmp_path):
    return Site(tmp_path)


def tree(files=40):
    rows = [directory(b"", 1, ctime=1), directory(b"d", 2, ctime=1), directory(b"e", 3, ctime=1)]
    rows += [row(b"d/f%02d" % n, 100 + n, size=n, ctime=5) for n in range(files)]
    rows += [row(b"%s/link" % parent, 50, nlink=2, ctime=5) for parent in (b"d", b"e")]
    return rows


def first_run(site, rows):
    streams = site.plan(site.manifest(rows))
    assert names(streams) == sorted(each["path"] for each in rows)
    site.save(streams)


def test_an_unchanged_tree_sends_nothing(site):
    first_run(site, tree())
    assert names(site.plan(site.manifest(tree()))) == []


@pytest.mark.parametrize("rows_target", [1, 7, 65_536])
def test_changes_go_whatever_the_ranges(site, monkeypatch, rows_target):
    first_run(site, tree())
    monkeypatch.setattr(plan_module, "ROWS_TARGET", rows_target)
    rows = changed(tree(), b"d/f07", ctime=9)
    rows = [each for each in rows if each["path"] != b"d/f09"]
    rows = changed(rows, b"d", ctime=9)
    rows.append(row(b"e/new", 500, ctime=9))
    manifest = site.manifest(rows[:20], rows[20:])
    assert names(site.plan(manifest)) == [b"-d/f09", b"d", b"d/f07", b"e/new"]


def test_all_names_of_a_changed_inode_go_together(site):
    first_run(site, tree())
    rows = changed(tree(), b"e/link", ctime=9)  # as if the scan had met it in two states
    streams = site.plan(site.manifest(rows))
    assert names(streams) == [b"d/link", b"e/link"]
    assert sum(bool(rows) for rows in streams.values()) == 1


def test_a_file_that_becomes_a_directory_is_deleted_as_a_file(site):
    first_run(site, tree())
    rows = [each for each in tree() if each["path"] != b"d/f01"]
    rows += [directory(b"d/f01", 600, ctime=9), row(b"d/f01/x", 601, ctime=9)]
    streams = site.plan(site.manifest(rows))
    assert names(streams) == [b"-d/f01", b"d/f01", b"d/f01/x"]
    (gone,) = [
        each for rows in streams.values() for each in rows if each["flags"] & RowFlag.DELETED
    ]
    assert stat.S_ISREG(gone["mode"])


def test_a_directory_that_is_gone_takes_all_below_it(site):
    first_run(site, tree())
    rows = [each for each in tree() if not each["path"].startswith(b"d")]
    expected = [b"-" + each["path"] for each in tree() if each["path"].startswith(b"d")]
    rows = changed(rows, b"e/link", nlink=1, ctime=9)
    assert names(site.plan(site.manifest(rows))) == sorted([*expected, b"e/link"])


def test_what_was_not_read_is_sent_again(site):
    streams = site.plan(site.manifest(tree()))
    site.save(streams, unread={b"d/f03"})
    assert names(site.plan(site.manifest(tree()))) == [b"d/f03"]


def test_below_a_directory_that_cannot_be_listed_nothing_is_deleted(site):
    first_run(site, tree())
    rows = [each for each in tree() if not each["path"].startswith(b"d/")]
    failed = directory(b"d", 2, error=13, flags=int(RowFlag.LIST_FAILED))
    assert names(site.plan(site.manifest([*rows, failed]))) == [b"d"]


def test_with_too_many_unlisted_directories_nothing_is_deleted(site, monkeypatch):
    first_run(site, tree())
    monkeypatch.setattr(plan_module, "UNLISTED_MAX", 0)
    rows = [each for each in tree() if each["path"] != b"d/f09"]
    failed = [directory(name, 2, error=13, flags=int(RowFlag.LIST_FAILED)) for name in (b"x", b"y")]
    assert names(site.plan(site.manifest([*rows, *failed]))) == [b"x", b"y"]


def test_a_name_that_goes_to_another_shard_and_back_is_never_deleted(site):
    rows = [directory(b"", 1), row(b"n", 10, ctime=5)]
    first_run(site, rows)
    other = next(
        ino for ino in range(1000, 1100) if shard_of_inode(site, ino) != shard_of_inode(site, 10)
    )
    streams = site.plan(site.manifest([directory(b"", 1), row(b"n", other, ctime=6)]))
    assert names(streams) == [b"n"]
    site.save(streams)
    streams = site.plan(site.manifest(rows))  # the first one again, exactly as it was
    assert names(streams) == [b"n"]
    assert [bool(streams[shard]) for shard in range(site.shards)] == [
        shard == shard_of_inode(site, 10) for shard in range(site.shards)
    ]


def shard_of_inode(site, ino):
    from shards.shard_function import shard_of

    return shard_of(ino, SEED, site.shards)


def test_a_scope_is_all_that_is_compared(site):
    first_run(site, tree())
    rows = [each for each in tree() if each["path"] in (b"d/f01", b"d")]
    rows = changed(rows, b"d/f01", ctime=9)
    scope = Scope((b"d", b"d/f01", b"d/f02", b"never"), ())
    assert names(site.plan(site.manifest(rows), scope)) == [b"-d/f02", b"d/f01"]


def test_a_subtree_of_a_scope_is_compared_whole(site):
    first_run(site, tree())
    kept = [each for each in tree() if each["path"] in (b"e", b"e/link")]
    scope = Scope((b"d", b"e", b"e/link"), (b"d",))
    expected = [b"-" + each["path"] for each in tree() if each["path"].startswith(b"d")]
    kept = changed(kept, b"e/link", nlink=1, ctime=9)
    assert names(site.plan(site.manifest(kept), scope)) == sorted([*expected, b"e/link"])
