"""A selection brings what was asked for, what it hangs from, and nothing else."""

import itertools
import stat

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.keys import key_path, name_key
from shards.selection import Selection, link_rows, select, winners
from shards.sorted_file import SortedFile, write_sorted
from shards.view_schema import VIEW_SCHEMA, NameState

FILES = [b"a", b"dir/b", b"dir2/c", b"one", b"dir/two", b"three", b"dir2/four"]
LINKS = {b"dir/two", b"three", b"dir2/four"}  # of one
DIRECTORIES = [b"dir/sub", b"dir", b"dir2", b""]
INDEX = {path: number for number, path in enumerate([*FILES, *DIRECTORIES], 1)}


def row(path, index, *, jobid=1, tdate=100, state=NameState.LIVE, first=0, folder=False):
    values = {field.name: 0 for field in VIEW_SCHEMA}
    values |= {"key": name_key(path, is_directory=folder), "hash": bytes(16), "due": False}
    values |= {"jobid": jobid, "file_index": index, "first_index": first, "tdate": tdate}
    values |= {"mode": stat.S_IFDIR if folder else stat.S_IFREG, "state": state, "sent_bytes": 10}
    return values


def batch(rows):
    return pa.RecordBatch.from_pylist(sorted(rows, key=lambda row: row["key"]), schema=VIEW_SCHEMA)


class StoredView:
    """What a selection asks of a view, from one file."""

    count = itertools.count()

    def __init__(self, folder, rows):
        path = folder / f"view{next(self.count)}"
        rows = batch(rows)
        write_sorted(path, VIEW_SCHEMA, [rows.slice(n, 2) for n in range(0, rows.num_rows, 2)])
        self.files = [SortedFile(path)]
        self.range = self.files[0].range
        self.lookup = self.files[0].lookup


def tree_rows(jobid=1, tdate=100):
    rows = [
        row(path, INDEX[path], jobid=jobid, tdate=tdate, first=INDEX[b"one"] * (path in LINKS))
        for path in FILES
    ]
    rows += [row(path, INDEX[path], jobid=jobid, tdate=tdate, folder=True) for path in DIRECTORIES]
    return [*rows, row(b"dir/gone", 0, jobid=jobid, tdate=tdate, state=NameState.ABSENT)]


def expand(ranges):
    flat = [index for low, high in ranges for index in range(low, high + 1)]
    assert flat == sorted(set(flat)), "ranges must ascend: Bacula skips what does not"
    return flat


def test_everything_is_two_ranges(tmp_path):
    found = select([StoredView(tmp_path, tree_rows())], None)
    assert found.jobs[1].contents.ranges() == [(1, 7)]
    assert found.jobs[1].directories.ranges() == [(8, 11)]
    assert (found.names, found.size_bytes) == (11, 110)
    assert not found.jobs[1].missing_first_names()


@pytest.mark.parametrize(
    ("paths", "contents", "directories"),
    [
        ([b"a"], [b"a"], [b""]),
        ([b"dir"], [b"dir/b", b"dir/two"], [b"dir/sub", b"dir", b""]),
        ([b"dir2/four"], [b"dir2/four"], [b"dir2", b""]),
        ([b"three", b"dir2/c"], [b"dir2/c", b"three"], [b"dir2", b""]),
        ([b"dir/b", b"dir", b"/dir/sub"], [b"dir/b", b"dir/two"], [b"dir/sub", b"dir", b""]),
        ([b"di"], [], [b""]),
        ([b"/dir/sub/"], [], [b"dir/sub", b"dir", b""]),
        ([b""], FILES, DIRECTORIES),
    ],
)
def test_paths_bring_what_is_below_and_the_directories_above(
    tmp_path, paths, contents, directories
):
    found = select([StoredView(tmp_path, tree_rows())], paths)
    assert expand(found.jobs[1].contents.ranges()) == sorted(INDEX[path] for path in contents)
    assert expand(found.jobs[1].directories.ranges()) == [INDEX[path] for path in directories]
    assert found.names == len(contents) + len(directories)


def test_paths_that_match_nothing_can_be_named(tmp_path):
    view = StoredView(tmp_path, tree_rows())
    assert select([view], [b"nowhere", b"dir", b"dir/b", b"dir/gone"]).matched == {b"dir", b"dir/b"}
    assert select([view], [b"dir/sub"]).matched == {b"dir/sub"}
    assert select([view], [b"di", b"dir/b/below"]).matched == set()


def test_a_link_names_the_record_that_it_needs(tmp_path):
    view = StoredView(tmp_path, tree_rows())
    assert select([view], [b"three"]).jobs[1].missing_first_names().ranges() == [(4, 4)]
    assert not select([view], [b"three", b"one"]).jobs[1].missing_first_names()
    found = select([view], None).jobs[1].contents
    assert [
        key_path(key)
        for rows in link_rows([view], {1: select([view], [b"one"]).jobs[1].contents, 2: found})
        for key in rows.column("key").to_pylist()
    ] == sorted(LINKS)


def test_the_newer_job_wins_a_name_whichever_shard_it_is_of(tmp_path):
    one = StoredView(tmp_path, tree_rows())
    two = StoredView(
        tmp_path,
        [
            row(b"a", 1, jobid=2, tdate=101),
            row(b"dir/b", 0, jobid=2, tdate=101, state=NameState.DELETED),
            row(b"three", 2, jobid=2, tdate=99),
            row(b"one", 3, jobid=3, tdate=102, state=NameState.ABSENT),
        ],
    )
    for views in ([one, two], [two, one]):
        found = select(views, None)
        assert expand(found.jobs[1].contents.ranges()) == [3, 4, 5, 6, 7]
        assert expand(found.jobs[2].contents.ranges()) == [1]
        assert found.names == 10
        assert select(views, [b"dir/b"]).matched == set()


NAMED = st.builds(
    lambda path, index, jobid, tdate, state: row(
        path, index * (state == NameState.LIVE), jobid=jobid, tdate=tdate, state=state
    ),
    st.sampled_from([b"x", b"y", b"z"]),
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from(list(NameState)),
)


@given(st.lists(st.lists(NAMED, unique_by=lambda row: row["key"]), min_size=1, max_size=4))
def test_one_live_row_at_most_of_each_name_and_it_is_bacula_s(views):
    """Bacula: the largest JobTDate; then live before deleted; then the larger FileIndex."""
    for number, rows in enumerate(views):
        for values in rows:
            values["jobid"] = 10 * number + values["tdate"]  # a job has one end
    batches = [batch(rows) for rows in views]
    chosen = [
        values
        for part, mask in zip(batches, winners(batches), strict=True)
        for values in part.filter(pa.array(mask)).to_pylist()
    ]
    by_name = {}
    for values in (values for part in batches for values in part.to_pylist()):
        if values["state"] != NameState.ABSENT:
            by_name.setdefault(values["key"], []).append(values)
    expected = {}
    for key, rivals in by_name.items():
        best = max(
            rivals, key=lambda v: (v["tdate"], v["state"] == NameState.LIVE, v["file_index"])
        )
        if best["state"] == NameState.LIVE:
            expected[key] = best["tdate"], best["file_index"]
    assert {v["key"]: (v["tdate"], v["file_index"]) for v in chosen} == expected
    assert len(chosen) == len(expected)


def test_an_empty_selection_has_no_names():
    assert Selection().names == 0
    assert winners([batch([]), batch([])])[0].tolist() == []
