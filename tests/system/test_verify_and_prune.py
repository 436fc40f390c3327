"""Verify finds what was broken on purpose, prune takes what nothing can name, restore says why."""

import os
import shutil
import sqlite3
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.bulk import remove_tree
from tests.support.compare import compare_trees, format_differences, take_snapshot
from tests.support.tree import make_tree
from tests.system.conftest import Installation

pytestmark = pytest.mark.bacula

INODES = 5_000
MARK = b"a content that is found on the volume" * 40


@pytest.fixture(scope="module")
def kinds(installation, tmp_path_factory):
    """A tree of every kind of file, with a full and an incremental backup: (tree, runs)."""
    root = tmp_path_factory.mktemp("kinds") / "tree"
    make_tree(root, INODES, seed=20_261_122, privileged=os.geteuid() == 0)
    full = installation.backup(root, "--name", "kinds", "--shards", "3")
    (root / "added").write_bytes(b"new in the incremental")
    first, second = sorted((root / "regular").iterdir())[:2]
    first.unlink()
    second.write_bytes(b"written anew")
    incremental = installation.backup(root, "--name", "kinds", "--level", "incremental")
    yield root, full["run"], incremental["run"]
    remove_tree(root)


def small_tree(root, folders=4, files=30):
    for folder in range(folders):
        (root / f"d{folder}").mkdir(parents=True)
        for number in range(files):
            (root / f"d{folder}" / f"f{number}").write_text(f"{folder} {number}")
    os.link(root / "d0" / "f0", root / "d1" / "link")
    return root


@pytest.fixture(scope="module")
def small(installation, tmp_path_factory):
    """A small tree, saved once; tests that break something put it right again."""
    root = small_tree(tmp_path_factory.mktemp("small") / "tree")
    (root / "marked").write_bytes(MARK)
    return root, installation.backup(root, "--name", "small", "--shards", "2")


def verify(installation, run, *arguments, differences=None):
    """Verify; return the JSON. differences None: there must be none."""
    done = installation.run("verify", run, "--json", "-q", *arguments)
    assert done.code == (0 if differences is None else 1), done
    result = done.json
    assert result["good"] == (differences is None)
    if differences is not None:
        assert result["kinds"] == differences, result
    return result


@contextmanager
def flipped(path, place=None):
    """Have one bit of a file the other way round for a while."""
    content = path.read_bytes()
    place = len(content) // 2 if place is None else place
    path.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    try:
        yield
    finally:
        path.write_bytes(content)


def execute(database, statement, parameters=()):
    with closing(sqlite3.connect(database, timeout=30)) as connection:
        connection.execute(statement, parameters)
        connection.commit()


def catalog(installation):
    return installation.home / "lab" / "work" / "director" / "bacula.db"


def run_folder(installation, run):
    return installation.home / "state" / "runs" / str(run)


def test_what_was_saved_agrees_down_to_the_contents(installation, kinds):
    _, full, incremental = kinds
    whole = verify(installation, full)
    assert whole["checked"]["names"]["names"] >= INODES
    assert whole["checked"]["jobs"] == 3
    newer = verify(installation, incremental, "--data")
    assert newer["checked"]["jobs"] == 6
    data = newer["data"]
    files = whole["checked"]["names"]["names"] - data["links"] - data["others"]
    assert data["files"] > files // 2
    assert data["sparse"] > 5
    assert data["links"] > 5
    assert data["by_size"] == 0, "this filesystem has the extents that were sent"
    assert data["due"] == 0
    left = [path.name for path in installation.home.iterdir() if "verify" in path.name]
    assert not left, "the scratch folder is removed"


def test_shards_are_read_back_one_by_one_where_room_is_short(installation, small):
    """The scratch filesystem has room for one of two shards."""
    _, run = small
    scratch = installation.home / "scratch"
    scratch.mkdir()
    for room, code in (("800k", 0), ("16k", 1)):
        if os.system(f"mount -t tmpfs -o size={room},nr_inodes=1000 none {scratch}"):
            pytest.skip("cannot mount a tmpfs")
        try:
            done = installation.run(
                "verify", run["run"], "--data", "--scratch", scratch, "--json", "-q"
            )
            assert done.code == code, done
            if code:
                assert "the data of one shard need up to" in done.err
            else:
                assert done.json["data"]["files"] == 121
            assert not os.listdir(scratch)
        finally:
            os.system(f"umount {scratch}")
    scratch.rmdir()


def test_a_damaged_receipts_file_is_named(installation, small):
    _, run = small
    job = run["jobs"][0]
    path = run_folder(installation, run["run"]) / "receipts" / f"0-{job['jobid']}.arrow"
    with flipped(path):
        result = verify(installation, run["run"], differences={"receipts": 1})
        assert path.name in result["listed"][0]["text"]
    verify(installation, run["run"])


def test_a_damaged_segment_is_named(installation, small):
    _, run = small
    (path,) = (run_folder(installation, run["run"]) / "segments").iterdir()
    with flipped(path):
        result = verify(installation, run["run"], differences={"segment": 1})
        assert path.name in result["listed"][0]["text"]
    verify(installation, run["run"])


def test_a_damaged_layer_is_made_again(installation, small, tmp_path):
    tree, run = small
    for path in (run_folder(installation, run["run"]) / "receipts").glob("*.layer"):
        content = path.read_bytes()
        path.write_bytes(content[:200] + bytes([content[200] ^ 1]) + content[201:])
        verify(installation, run["run"])
        assert path.read_bytes() == content
        path.write_bytes(content[:-9])
    installation.ok("restore", run["run"], "--to", tmp_path / "place", "-q")
    assert not compare_trees(tree, Path(f"{tmp_path}/place{tree}"))


def test_receipts_that_are_not_those_of_the_run_miss_its_root(installation, small):
    _, run = small
    ledger = installation.home / "state" / "ledger.sqlite"
    with closing(sqlite3.connect(ledger)) as database:
        (root,) = database.execute(
            "SELECT merkle FROM runs WHERE number = ?", (run["run"],)
        ).fetchone()
    statement = "UPDATE runs SET merkle = ? WHERE number = ?"
    execute(ledger, statement, (bytes([root[0] ^ 1]) + root[1:], run["run"]))
    verify(installation, run["run"], differences={"root": 1})
    execute(ledger, statement, (root, run["run"]))
    verify(installation, run["run"])


def test_rows_of_the_catalog_that_went_or_came_are_named(installation, small):
    _, run = small
    jobid = run["jobs"][1]["jobid"]
    query = "SELECT FileId, FileIndex, Filename FROM File WHERE JobId = ? AND FileIndex = 3"
    ((file_id, index, name),) = installation.query(query, (jobid,))
    name = name.decode()
    database = catalog(installation)
    try:
        execute(database, "UPDATE File SET FileIndex = -3 WHERE FileId = ?", (file_id,))
        result = verify(
            installation,
            run["run"],
            differences={"not in the catalog": 1, "not in the receipts": 1},
        )
        assert all(each["path"].endswith(name) for each in result["listed"])
        assert any(f"FileIndex {index}, deleted" in each["text"] for each in result["listed"])
        execute(database, "UPDATE File SET FileIndex = 3 WHERE FileId = ?", (file_id,))
        execute(database, "UPDATE File SET JobId = 1000000 WHERE FileId = ?", (file_id,))
        result = verify(installation, run["run"], differences={"not in the catalog": 1})
        assert f"JobId {jobid}, FileIndex 3" in result["listed"][0]["text"]
        told = installation.run("verify", run["run"], "-q")
        assert told.code == 1
        assert f"/{name}: JobId {jobid}, FileIndex 3" in told.out
        execute(
            database,
            "UPDATE File SET JobId = ? WHERE FileId = ?",
            (run["jobs"][0]["jobid"], file_id),
        )
        verify(
            installation,
            run["run"],
            differences={"not in the catalog": 1, "not in the receipts": 1},
        )
    finally:
        execute(
            database, "UPDATE File SET JobId = ?, FileIndex = 3 WHERE FileId = ?", (jobid, file_id)
        )
    execute(database, "UPDATE Job SET JobFiles = JobFiles + 1 WHERE JobId = ?", (jobid,))
    verify(installation, run["run"], differences={"totals": 1})
    execute(database, "UPDATE Job SET JobFiles = JobFiles - 1 WHERE JobId = ?", (jobid,))
    verify(installation, run["run"])


def test_a_volume_that_lies_is_found_by_reading_it(installation, small):
    _, run = small
    volumes = (installation.home / "lab" / "volumes").iterdir()
    path, place = next(
        (path, place) for path in volumes if (place := path.read_bytes().find(MARK)) >= 0
    )
    with flipped(path, place + 5):
        verify(installation, run["run"])
        result = installation.run("verify", run["run"], "--data", "--json", "-q")
        assert result.code == 1
        assert result.json["kinds"].keys() <= {"data", "restore"}
    verify(installation, run["run"], "--data")


def test_many_differences_are_counted_and_the_first_are_listed(installation, small):
    _, run = small
    jobid = run["jobs"][0]["jobid"]
    database = catalog(installation)
    execute(database, "UPDATE File SET JobId = 1000000 + JobId WHERE JobId = ?", (jobid,))
    try:
        done = installation.run("verify", run["run"], "-q")
        count = run["jobs"][0]["files"]
        assert count > 50
        assert f"and {count - 50:,} more; --all lists them" in done.out
        everything = installation.run("verify", run["run"], "-q", "--all")
        assert everything.out.count("not in the catalog: ") == count
    finally:
        execute(database, "UPDATE File SET JobId = ? WHERE JobId = ?", (jobid, 1_000_000 + jobid))
    verify(installation, run["run"])


def jobids(run):
    return [job["jobid"] for job in run["jobs"]]


def test_prune_takes_a_chain_only_when_all_of_it_is_gone(installation, tmp_path):
    root = small_tree(tmp_path / "tree")
    first = installation.backup(root, "--name", "p", "--shards", "2")
    (root / "d0" / "f1").write_text("changed")
    second = installation.backup(root, "--name", "p", "--level", "incremental")
    third = installation.backup(root, "--name", "p", "--level", "full")

    def pruned(*arguments):
        items = installation.ok("prune", "--json", *arguments).json["items"]
        assert all(item["dataset"] == "p" for item in items)
        return [item["run"] for item in items]

    assert pruned() == []
    one, other = jobids(first)
    installation.console(f"delete jobid={one} yes\npurge files jobid={other} yes\n")
    assert pruned() == [], "the second run's jobs build on the first one's"
    done = installation.run("restore", second["run"], "--to", tmp_path / "place", "-q")
    assert done.code == 1
    assert f"JobId {one}, from which run {second['run']} is restored, is no longer in" in done.err
    assert not (tmp_path / "place").exists()
    result = verify(installation, second["run"], differences={"job gone": 1})
    assert f"JobId {one}" in result["listed"][0]["text"]
    installation.console(f"delete jobid={jobids(second)[0]} yes\n")
    assert pruned() == [], "a job of the second run is still there, and names one of the first"
    installation.console(f"purge files jobid={jobids(second)[1]} yes\n")
    assert pruned() == [second["run"], first["run"]]
    assert run_folder(installation, first["run"]).exists(), "nothing goes without --apply"

    os.rename(catalog(installation), catalog(installation).with_name("away"))
    try:
        done = installation.run("prune", "--apply")
    finally:
        os.rename(catalog(installation).with_name("away"), catalog(installation))
    assert done.code == 1
    assert "cannot be read" in done.err
    assert run_folder(installation, first["run"]).exists()

    assert pruned("--apply") == [second["run"], first["run"]]
    assert not run_folder(installation, first["run"]).exists()
    assert not run_folder(installation, second["run"]).exists()
    assert pruned() == []
    assert installation.ok("show", first["run"], "--json").json["pruned"]
    assert "pruned" in installation.run("verify", first["run"]).err
    done = installation.run("restore", first["run"], "--to", tmp_path / "place", "-q")
    assert done.code == 1
    verify(installation, third["run"], "--data")
    installation.ok("restore", third["run"], "--to", tmp_path / "place", "-q")
    differences = compare_trees(root, Path(f"{tmp_path}/place{root}"))
    assert not differences, format_differences(differences)


def test_an_incomplete_run_brings_the_rest_from_before(installation, tmp_path):
    root = small_tree(tmp_path / "tree")
    before = take_snapshot(root)
    first = installation.backup(root, "--name", "part", "--shards", "2")
    for folder in range(4):
        for number in range(10):
            (root / f"d{folder}" / f"f{number}").write_text("changed since")
    second = installation.backup(root, "--name", "part", "--level", "incremental")
    lost = jobids(second)[1]
    ledger = installation.home / "state" / "ledger.sqlite"
    execute(ledger, "UPDATE jobs SET state = 'bad', reason = 'lost' WHERE jobid = ?", (lost,))
    execute(
        ledger,
        "UPDATE runs SET state = 'incomplete', reason = 'shard 1: lost' WHERE number = ?",
        (second["run"],),
    )
    place = tmp_path / "place"
    done = installation.run("restore", second["run"], "--to", place, "-q", "--json")
    assert done.code == 3, done
    assert f"run {second['run']} is incomplete: shard 1: lost" in done.err
    told = f"shard 1 comes as it was in run {first['run']} (JobId {jobids(first)[1]})"
    assert told in done.err
    assert told in done.json["notes"]
    restored = Path(f"{place}{root}")
    texts = {path: path.read_text() for path in restored.rglob("f*")}
    names = {path.relative_to(restored) for path in texts}
    assert names == {path.relative_to(root) for path in root.rglob("f*")}
    changed = [path for path, text in texts.items() if text == "changed since"]
    assert 0 < len(changed) < 40
    assert len(before.entries) == len(take_snapshot(restored).entries)
    plan = installation.run("restore", second["run"], "--dry-run", "--json", "-q").json
    assert plan["jobids"] == sorted([*jobids(first), jobids(second)[0]])
    done = installation.run("verify", second["run"], "--json", "-q")
    assert done.code == 1
    assert done.json["kinds"].pop("no job") == 1
    shown = installation.ok("show", second["run"])
    assert f"forebay backup --resume {second['run']}" in shown.out
    assert f"builds on JobId {jobids(first)[0]}" in shown.out


def test_nothing_is_verified_or_pruned_where_nothing_is(tmp_path):
    nowhere = Installation(tmp_path / "home")
    assert "there is no run 3" in nowhere.run("verify", "3").err
    assert nowhere.run("prune").code == 2
    shutil.rmtree(tmp_path / "home", ignore_errors=True)
