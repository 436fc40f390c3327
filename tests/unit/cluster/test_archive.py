"""Archives: whole or not there, brought back as they were, pruned by what builds on what."""

import json
import os
import shutil
import stat
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

import cluster.archive.importing
import cluster.archive.saving
from bacula_bridge.coordinator import UnknownRun
from cluster.archive.errors import (
    ArchiveConflict,
    ArchiveUnavailable,
    ArchiveUrlWrong,
    CannotWrite,
    ImportConflict,
    IndexNewer,
    LedgersSeveral,
    LocalFileDamaged,
    NothingToArchive,
    ObjectDamaged,
    ObjectMissing,
)
from cluster.archive.importing import import_runs
from cluster.archive.index import (
    contents_name,
    encode_index,
    index_name,
    indexes,
    ledgers,
    read_contents,
    read_index,
    run_folder,
    sums_of,
)
from cluster.archive.listing import list_state
from cluster.archive.retention import prune_archive
from cluster.archive.saving import archive_run, archive_runs, local_heads
from cluster.archive.store import ArchiveStore
from cluster.records import find_run, list_runs
from cluster.settings import Settings
from shards.ledger import Ledger, NotResumable
from shards.ledger_home import open_ledger
from shards.ledger_schema import RunState
from shards.run_rows import RowsForeign, insert_run_rows, read_run_rows
from tests.support.archive_site import (
    RUNS,
    Killed,
    archived,
    check_same,
    die_after,
    empty_state,
    files_of,
    identity,
    make_home,
    rows_of,
)


def at(store, state, run, name):
    """Return where an object of a file archive is."""
    return Path(store.url.removeprefix("file://")) / run_folder(identity(state), run) / name


def an_object(store, state, run=2, folder="receipts"):
    """Return name and path of a file's object."""
    index = read_index(store, identity(state), run)
    name = next(f.name for f in read_contents(store, index).files if f.name.startswith(folder))
    return name, at(store, state, run, name)


def test_runs_come_back_into_an_empty_state_directory_as_they_were(state, url, tmp_path):
    store = archived(state, url)
    target = empty_state(tmp_path / "new")
    report = import_runs(target, store)
    assert [imported.run for imported in report.imported] == RUNS
    assert all(not imported.was_known and imported.copied for imported in report.imported)
    check_same(state, target)
    settings = Settings(tmp_path / "new")
    assert [record.run.number for record in list_runs(settings)] == RUNS[::-1]
    assert find_run(settings, "latest").run.state is RunState.COMPLETE


def test_archiving_again_copies_nothing(state, url):
    store = archived(state, url)
    again = archive_runs(state, store)
    assert [(saved.run, saved.was_there, saved.copied) for saved in again.saved] == [
        (run, True, 0) for run in RUNS
    ]


def test_importing_again_copies_nothing(state, store, tmp_path):
    target = empty_state(tmp_path / "new")
    import_runs(target, store)
    again = import_runs(target, store)
    assert all(each.was_known and each.copied == 0 for each in again.imported)
    check_same(state, target)


def test_an_imported_state_goes_on_with_its_ledger_and_its_archive(state, store, tmp_path):
    target = empty_state(tmp_path / "new")
    import_runs(target, store, [1])
    assert identity(target) == identity(state)
    with closing(open_ledger(target)) as ledger:
        assert ledger.begin_run("d", "full").number == RUNS[-1] + 1  # not one of the archive's
    again = archive_runs(target, store)
    assert [saved.was_there for saved in again.saved] == [True]


def test_what_was_lost_of_a_state_directory_comes_back(state, store, origin):
    shutil.rmtree(state.run(1))
    path = state.run(2) / "receipts" / rows_of(state, 2).tables["jobs"][0]["receipts"]
    path.unlink()
    report = import_runs(state, store)
    assert [(each.was_known, each.copied > 0) for each in report.imported] == [
        (True, True),
        (True, True),
        (True, False),
    ]
    check_same(origin, state)


def test_a_single_run_is_imported_and_an_unknown_one_is_named(state, store, tmp_path):
    target = empty_state(tmp_path / "new")
    import_runs(target, store, [2])
    check_same(state, target, [2])
    assert not target.run(1).exists()
    with pytest.raises(UnknownRun):
        import_runs(target, store, [77])
    with pytest.raises(UnknownRun):
        archive_run(state, store, 77)


def test_an_imported_run_says_that_it_cannot_be_resumed(state, store, tmp_path):
    with closing(open_ledger(state)) as ledger:
        ledger.end_run(3, RunState.INCOMPLETE, "shard 0: killed")
    archive_run(state, store, 3)
    target = empty_state(tmp_path / "new")
    import_runs(target, store)
    assert "archive" in find_run(Settings(tmp_path / "new"), "3").how_to_go_on
    with closing(open_ledger(target)) as ledger, pytest.raises(NotResumable):
        ledger.reopen_run(3, 1)


def test_a_run_that_went_on_is_archived_again(state, store):
    before = read_index(store, identity(state), 3)
    with closing(open_ledger(state)) as ledger:
        ledger.end_run(3, RunState.WARNINGS, None, rows_of(state, 3).run["merkle"])
    saved = archive_run(state, store, 3)
    after = read_index(store, identity(state), 3)
    assert not saved.was_there
    assert saved.copied == 0
    assert after.head.state is RunState.WARNINGS
    assert store.size(f"{run_folder(identity(state), 3)}/{before.contents}") is None
    assert read_contents(store, after).rows.says_the_same(rows_of(state, 3))


def test_a_changed_dataset_is_no_reason_to_archive_again(state, store):
    with closing(open_ledger(state)) as ledger:
        ledger.set_shards("d", 5)
    assert archive_run(state, store, 1).was_there


def test_an_open_run_and_one_without_a_good_job_are_not_archived(state, store):
    with closing(open_ledger(state)) as ledger:
        run = ledger.begin_run("d", "full").number
        state.make_run(run)
        with pytest.raises(NothingToArchive, match="not ended"):
            archive_run(state, store, run)
        ledger.end_run(run, RunState.FAILED, "no job")
    with pytest.raises(NothingToArchive, match="no job"):
        archive_run(state, store, run)
    assert [saved.run for saved in archive_runs(state, store).saved] == RUNS


def test_a_run_whose_manifest_was_pruned_is_not_archived(state, url):
    shutil.rmtree(state.run(1))
    store = ArchiveStore(url)
    with pytest.raises(NothingToArchive, match="not here"):
        archive_run(state, store, 1)
    assert [saved.run for saved in archive_runs(state, store).saved] == [2, 3]


def test_a_damaged_local_file_is_never_archived_as_good(state, url):
    (segment, *_) = (state.segments(2)).iterdir()
    segment.write_bytes(segment.read_bytes()[:-1] + b"?")
    store = ArchiveStore(url)
    said = []
    report = archive_runs(state, store, say=said.append)
    assert [saved.run for saved in report.saved] == [1, 3]
    assert [run for run, _ in report.failed] == [2]
    assert segment.name in report.failed[0][1]
    assert read_index(store, identity(state), 2) is None
    with pytest.raises(LocalFileDamaged):
        archive_run(state, store, 2)


def test_another_run_of_the_same_number_is_not_overwritten(state, store, monkeypatch):
    rows = rows_of(state, 2)
    with closing(open_ledger(state)) as ledger, ledger.transaction() as db:
        db.execute("UPDATE runs SET started = started + 1 WHERE number = 2")
    before = read_index(store, identity(state), 2)
    with pytest.raises(ArchiveConflict, match="nothing is overwritten"):
        archive_run(state, store, 2)
    assert read_index(store, identity(state), 2) == before
    with pytest.raises(RowsForeign, match="another run"), closing(open_ledger(state)) as ledger:
        insert_run_rows(ledger, rows)


@pytest.mark.parametrize("folder", ["segments", "receipts"])
@pytest.mark.parametrize("length", [-1, 0])
def test_a_damaged_object_is_named_and_nothing_of_it_is_used(
    state, store, tmp_path, folder, length
):
    name, path = an_object(store, state, folder=folder)
    data = path.read_bytes()
    path.write_bytes(data[:length] if length else data[:-1] + bytes([data[-1] ^ 1]))
    target = empty_state(tmp_path / "new")
    report = import_runs(target, store)
    assert [each.run for each in report.imported] == [1, 3]
    ((run, said),) = report.failed
    assert run == 2
    assert name in said
    assert "damaged" in said
    assert not (target.run(2) / name).exists()
    assert not list(target.run(2).rglob("*.partial"))
    assert read_run_rows_of(target, 2) is None
    archive_run(state, store, 2, verify=True)  # which mends it
    import_runs(target, store)
    check_same(state, target)


def read_run_rows_of(state, run):
    with closing(Ledger(state.ledger, read_only=True)) as ledger:
        return read_run_rows(ledger, run)


def test_a_missing_object_is_named(state, store, tmp_path):
    name, path = an_object(store, state)
    os.unlink(path)
    target = empty_state(tmp_path / "new")
    ((run, said),) = import_runs(target, store).failed
    assert run == 2
    assert name in said
    assert "missing" in said
    assert archive_run(state, store, 2).was_there  # it is looked at on request
    assert archive_run(state, store, 2, verify=True).copied == 1
    assert import_runs(target, store).failed == []


def test_missing_or_damaged_contents_are_named(state, store, tmp_path):
    index = read_index(store, identity(state), 2)
    path = at(store, state, 2, index.contents)
    path.write_bytes(path.read_bytes().replace(b'"d"', b'"e"'))
    with pytest.raises(ObjectDamaged, match="contents"):
        read_contents(store, index)
    os.unlink(path)
    with pytest.raises(ObjectMissing, match="contents"):
        read_contents(store, index)


def test_a_damaged_index_and_one_of_a_later_version_are_named(state, store, tmp_path):
    path = at(store, state, 2, "index.json")
    good = json.loads(path.read_text())
    for change, expected in (
        ({"version": 2}, IndexNewer),
        ({"format": "tar"}, ObjectDamaged),
        ({"index": good["index"] | {"files": 0}}, ObjectDamaged),
        (None, ObjectDamaged),
    ):
        path.write_text("{" if change is None else json.dumps(good | change))
        with pytest.raises(expected, match=r"index\.json"):
            read_index(store, identity(state), 2)
        failed = import_runs(empty_state(tmp_path / "new"), store).failed
        assert [run for run, _ in failed] == [2]
        with pytest.raises(expected):  # nobody knows what it needs
            prune_archive(store, identity(state), local_heads(state), 1, apply=True)


def test_an_index_of_another_run_is_refused(state, store):
    shutil.copy(at(store, state, 1, "index.json"), at(store, state, 2, "index.json"))
    with pytest.raises(ObjectDamaged, match="another run"):
        read_index(store, identity(state), 2)


def test_something_different_is_never_overwritten(state, store):
    name, _ = an_object(store, state)
    path = state.run(2) / name
    path.write_bytes(b"something else")
    ((_, said),) = import_runs(state, store).failed
    assert str(path) in said
    assert path.read_bytes() == b"something else"
    path.unlink()
    assert import_runs(state, store).failed == []


def test_what_comes_there_in_mid_import_is_not_overwritten_either(state, store, monkeypatch):
    name, _ = an_object(store, state)
    path = state.run(2) / name
    path.unlink()
    link = os.link

    def late(source, target):
        path.write_bytes(b"somebody else's")
        link(source, target)

    monkeypatch.setattr(cluster.archive.importing.os, "link", late)
    ((_, said),) = import_runs(state, store).failed
    assert said == str(ImportConflict(str(path)))
    assert path.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("count", range(5))
def test_an_archive_that_is_killed_has_the_run_whole_or_not_and_goes_on(
    state, tmp_path, monkeypatch, count
):
    monkeypatch.setattr(cluster.archive.saving, "COPIES_AT_ONCE", 1)
    store = ArchiveStore(f"file://{tmp_path}/archive")
    with monkeypatch.context() as patch:
        for name in ("upload", "write"):
            patch.setattr(ArchiveStore, name, die_after(count // 2, getattr(ArchiveStore, name)))
        with pytest.raises(Killed):
            archive_runs(state, store)
    whole = [index.head.run for index in indexes(store, identity(state))]
    assert whole == RUNS[: len(whole)]
    if whole:
        assert import_runs(empty_state(tmp_path / "part"), store).failed == []
    archived(state, store.url)
    import_runs(empty_state(tmp_path / "new"), store)
    check_same(state, empty_state(tmp_path / "new"))


@pytest.mark.parametrize("count", range(7))
def test_an_import_that_is_killed_has_the_run_whole_or_not_and_goes_on(
    state, store, tmp_path, monkeypatch, count
):
    monkeypatch.setattr(cluster.archive.importing, "COPIES_AT_ONCE", 1)
    target = empty_state(tmp_path / "new")
    with monkeypatch.context() as patch:
        module, name = [
            (ArchiveStore, "sums"),
            (cluster.archive.importing, "insert_run_rows"),
        ][count % 2]
        patch.setattr(module, name, die_after(count // 2, getattr(module, name)))
        with pytest.raises(Killed):
            import_runs(target, store)
    known = [record.run.number for record in list_runs(Settings(tmp_path / "new"))]
    check_same(state, target, known)
    import_runs(target, store)
    check_same(state, target)
    with closing(open_ledger(target)) as ledger:
        assert ledger.begin_run("d", "full").number == 4


def test_an_object_that_comes_back_different_makes_no_run(state, tmp_path, monkeypatch):
    store = ArchiveStore(f"file://{tmp_path}/archive")
    upload = ArchiveStore.upload

    def lossy(self, path, name):
        upload(self, path, name)
        with open(f"{tmp_path}/archive/{name}", "ab") as file:
            file.write(b"?")

    monkeypatch.setattr(ArchiveStore, "upload", lossy)
    with pytest.raises(ObjectDamaged, match="came back different"):
        archive_run(state, store, 1)
    assert read_index(store, identity(state), 1) is None


def test_a_full_disk_is_named_as_what_it_is(state, store, tmp_path, monkeypatch):
    class Full:
        name = "the file"

        def write(self, data):
            raise OSError(28, "No space left on device")

    name, _ = an_object(store, state)
    with pytest.raises(CannotWrite, match="the file cannot be written: No space left"):
        store.sums(f"{run_folder(identity(state), 2)}/{name}", Full())


def test_receipts_without_the_root_that_the_run_ended_with_are_refused(state, store, tmp_path):
    with closing(open_ledger(state)) as ledger:
        ledger.end_run(2, RunState.COMPLETE, None, bytes(32))
    archive_run(state, store, 2)
    target = empty_state(tmp_path / "new")
    ((run, said),) = import_runs(target, store).failed
    assert run == 2
    assert "root" in said
    assert read_run_rows_of(target, 2) is None


def test_runs_of_several_ledgers_in_one_archive_do_not_mix(state, store, tmp_path):
    other = make_home(tmp_path / "other")
    archived(other, store.url)
    assert len(ledgers(store)) == 2
    target = empty_state(tmp_path / "new")
    with pytest.raises(LedgersSeveral, match=identity(other)):
        import_runs(target, store)
    import_runs(target, store, source=identity(other))
    check_same(other, target)
    import_runs(other, store)  # its own without asking


def test_an_archive_without_runs_says_so(tmp_path):
    for name in (None, "0123456789abcdef"):
        with pytest.raises(Exception, match="has no runs"):
            import_runs(empty_state(tmp_path), ArchiveStore(f"file://{tmp_path}/none"), source=name)
    assert not empty_state(tmp_path).ledger.exists()


def test_an_archive_in_files_is_for_its_owner_alone(state, tmp_path):
    mask = os.umask(0)
    try:
        archived(state, f"file://{tmp_path}/archive")
    finally:
        os.umask(mask)
    check_private(tmp_path / "archive")


def check_private(folder):
    """Check that nobody but the owner may look into a folder or anything below it."""
    paths = [folder, *folder.rglob("*")]
    assert len(paths) > 10
    for path in paths:
        mode = stat.S_IMODE(path.lstat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path


def test_nothing_in_a_state_directory_is_wider_than_its_owner(tmp_path):
    mask = os.umask(0)
    try:
        state = make_home(tmp_path / "made")
        store = archived(state, f"file://{tmp_path}/archive")
        import_runs(empty_state(tmp_path / "new"), store)
    finally:
        os.umask(mask)
    check_private(state.base)
    check_private(tmp_path / "new" / "state")


def test_the_listing_shows_what_is_where(state, store, tmp_path):
    shutil.rmtree(state.run(1))
    listing = list_state(state, store)
    assert [(run.run, run.local_bytes is None, run.archived_bytes > 0) for run in listing.runs] == [
        (1, True, True),
        (2, False, True),
        (3, False, True),
    ]
    assert listing.ledger_bytes == state.ledger.stat().st_size
    elsewhere = list_state(empty_state(tmp_path / "new"), store)
    assert [run.run for run in elsewhere.runs] == RUNS
    assert all(run.local_bytes is None for run in elsewhere.runs)
    assert all(run.archived_bytes is None for run in list_state(state, None).runs)
    assert list_state(empty_state(tmp_path / "new"), None).runs == []


@pytest.mark.parametrize("url", ["nix://b", "gs://b/c"])
def test_a_url_that_cannot_be_opened_is_named(url):
    with pytest.raises(ArchiveUrlWrong, match=url):
        ArchiveStore(url)


def test_a_place_that_cannot_be_written_is_named(state, tmp_path):
    (tmp_path / "archive").write_text("a file")
    with pytest.raises(ArchiveUnavailable, match="archive"):
        archive_run(state, ArchiveStore(f"file://{tmp_path}/archive"), 1)


def test_the_files_are_those_of_the_rows(state):
    assert {folder for folder, _ in files_of(state, 1)} == {"segments", "receipts"}


def test_files_that_are_not_what_their_rows_say_are_refused(state, store, tmp_path):
    contents = read_contents(store, read_index(store, identity(state), 2))
    contents.rows.tables["segments"][0]["checksum"] ^= 1
    write_contents(store, state, contents)
    ((_, said),) = import_runs(empty_state(tmp_path / "new"), store).failed
    assert "not what its rows say" in said


def test_contents_that_lack_a_file_of_their_rows_are_refused(state, store):
    contents = read_contents(store, read_index(store, identity(state), 2))
    write_contents(store, state, replace(contents, files=contents.files[1:]))
    with pytest.raises(ObjectDamaged, match="rows name"):
        read_contents(store, read_index(store, identity(state), 2))


def write_contents(store, state, contents):
    """Put other contents into an archive, with an index that names them."""
    index = read_index(store, identity(state), 2)
    data = contents.encode()
    changed = replace(
        index,
        contents=contents_name(data),
        contents_bytes=len(data),
        contents_xxh3=sums_of(data).xxh3,
    )
    store.write(f"{run_folder(identity(state), 2)}/{changed.contents}", data)
    store.write(index_name(identity(state), 2), encode_index(changed))
