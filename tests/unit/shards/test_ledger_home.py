"""One owner for a state directory; a ledger elsewhere is copied, lost, and taken from its copy."""

import logging
import os
import shutil
import sqlite3
import stat
from contextlib import closing

import pytest

import shards.ledger_files
import shards.ledger_home
from shards.ledger import Dataset, Ledger, LedgerBusy, NotResumable, StaleEpoch
from shards.ledger_files import (
    LedgerCopyDamaged,
    LedgerCopyFailed,
    copy_ledger,
    read_mark,
    take_copy,
)
from shards.ledger_home import (
    LedgerForeign,
    LedgerOlder,
    OwnerUnreadable,
    StateOwned,
    open_ledger,
    read_owner,
    save_copy,
)
from shards.ledger_schema import RunState
from shards.state import StateDirectory

ROLE = "walker:0"


class Killed(BaseException):
    """Stands for the end of the process at a step."""


@pytest.fixture
def state(tmp_path):
    return StateDirectory(tmp_path / "state", tmp_path / "local")


def opened(state):
    return closing(open_ledger(state))


def one_run(state, ledger):
    """Let a run begin, leave its folder, and end."""
    if ledger.dataset("d") is None:
        ledger.put_dataset(Dataset("d", "posix", b"/data", 2, 7))
    run = ledger.begin_run("d", "full").number
    state.make_run(run)
    ledger.end_run(run, RunState.INCOMPLETE, "no job")
    save_copy(state, ledger.identity)
    return run


def lose(state):
    shutil.rmtree(state.ledger_folder)


def on_another_host(monkeypatch):
    monkeypatch.setattr(shards.ledger_home.socket, "gethostname", lambda: "another")


def test_a_ledger_inside_the_state_directory_has_no_copy_and_may_move_with_it(tmp_path):
    state = StateDirectory(tmp_path / "state")
    with opened(state) as ledger:
        one_run(state, ledger)
        identity = ledger.identity
    assert not state.ledger_copy.exists()
    moved = StateDirectory(tmp_path / "moved")
    os.rename(state.base, moved.base)
    with opened(moved) as ledger:
        assert ledger.identity == identity


def test_a_ledger_of_before_identities_gets_one_and_keeps_it(tmp_path):
    state = StateDirectory(tmp_path)
    Ledger(state.ledger).close()
    with closing(sqlite3.connect(state.ledger)) as db:
        db.execute("DELETE FROM meta WHERE key IN ('identity', 'copies')")
        db.commit()
    with opened(state) as ledger:
        identity = ledger.identity
        assert identity
    with opened(state) as ledger:
        assert ledger.identity == identity
    assert read_owner(state).ledger == identity


def test_a_lost_ledger_is_taken_from_its_copy_and_says_so(state, caplog):
    with opened(state) as ledger:
        first = one_run(state, ledger)
        identity = ledger.identity
    lose(state)
    with caplog.at_level(logging.WARNING), opened(state) as ledger:
        assert [run.number for run in ledger.runs()] == [first]
        assert ledger.identity == identity
        assert one_run(state, ledger) == first + 1
    assert "was lost and is made from its copy" in caplog.text


def test_a_copy_that_lacks_the_newest_runs_does_not_use_their_numbers_again(state):
    with opened(state) as ledger:
        first = one_run(state, ledger)
        older = state.ledger_copy.read_bytes()
        second = one_run(state, ledger)
    state.ledger_copy.write_bytes(older)
    lose(state)
    with opened(state) as ledger:
        assert [run.number for run in ledger.runs()] == [first]
        assert one_run(state, ledger) == second + 1


def test_epochs_do_not_go_back_however_often_the_ledger_is_lost(state):
    seen = set()
    for _ in range(3):
        with opened(state) as ledger:
            one_run(state, ledger)
            for role in (ROLE, ROLE, "bridge"):  # after the copy: it does not have them
                seen.add((role, epoch := ledger.take_epoch(role)))
                assert epoch == max(number for name, number in seen if name == role)
        lose(state)
    assert len(seen) == 9


def test_whoever_took_an_epoch_of_the_lost_ledger_is_fenced(state):
    with opened(state) as ledger:
        one_run(state, ledger)
        epoch = ledger.take_epoch(ROLE)
        save_copy(state, ledger.identity)
    lose(state)
    with opened(state) as ledger, pytest.raises(StaleEpoch):
        ledger.check_epoch(ROLE, epoch)


def test_a_ledger_that_is_lost_without_a_copy_starts_anew_with_other_numbers(state):
    with opened(state) as ledger:
        first = one_run(state, ledger)
        identity, epoch = ledger.identity, ledger.take_epoch(ROLE)
    lose(state)
    state.ledger_copy.unlink()
    with opened(state) as ledger:
        assert ledger.runs() == []
        assert ledger.identity != identity
        assert ledger.take_epoch(ROLE) > epoch
        assert one_run(state, ledger) == first + 1
    with opened(state):
        pass


@pytest.mark.parametrize("step", ["backup", "rename", "copy", "owner"])
def test_a_kill_at_any_step_of_taking_the_copy_leaves_it_to_the_next_start(
    state, monkeypatch, step
):
    with opened(state) as ledger:
        first = one_run(state, ledger)
        identity = ledger.identity
    lose(state)
    if step == "owner":
        state.owner.unlink()

    def die(*_arguments, **_more):
        raise Killed

    with monkeypatch.context() as patch:
        module, name = {
            "backup": (shards.ledger_files, "_skip_epochs"),
            "rename": (shards.ledger_files, "_publish"),
            "copy": (shards.ledger_home, "copy_ledger"),
            "owner": (shards.ledger_home, "_claim"),
        }[step]
        patch.setattr(module, name, die)
        with pytest.raises(Killed):
            open_ledger(state)
    with opened(state) as ledger:
        assert ledger.identity == identity
        assert one_run(state, ledger) == first + 1


def test_a_kill_while_the_ledger_is_copied_leaves_the_copy_before_it(state, monkeypatch):
    with opened(state) as ledger:
        one_run(state, ledger)
        before = state.ledger_copy.read_bytes()

        def die():
            raise Killed

        with pytest.raises(Killed):
            copy_ledger(state.ledger, state.ledger_copy, die)
        assert state.ledger_copy.read_bytes() == before
        save_copy(state, ledger.identity)
        assert read_mark(state.ledger_copy, is_copy=True).copies == 4


def test_a_kill_between_owner_and_first_ledger_is_no_obstacle(state, monkeypatch):
    def die(*_arguments):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(shards.ledger_home, "make_empty", die)
        with pytest.raises(Killed):
            open_ledger(state)
    with opened(state) as ledger:
        assert read_owner(state).ledger == ledger.identity


def test_a_copy_is_whole_though_the_ledger_is_written_meanwhile_and_stops_nobody(
    state, monkeypatch
):
    monkeypatch.setattr(shards.ledger_files, "COPY_PAGES", 1)
    with opened(state) as ledger:
        one_run(state, ledger)
        steps = []

        def write():
            steps.append(ledger.take_epoch(f"role-{len(steps)}"))

        copy_ledger(state.ledger, state.ledger_copy, write, max_s=20)
        assert len(steps) > 10  # it did not start anew with each commit, or it would never end
    with closing(sqlite3.connect(state.ledger_copy)) as db:
        assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert db.execute("SELECT count(*) FROM roles").fetchone() == (0,)


def test_a_copy_that_takes_too_long_is_given_up(state):
    with opened(state) as ledger:
        one_run(state, ledger)
        with pytest.raises(LedgerCopyFailed, match="took more than -1 s"):
            copy_ledger(state.ledger, state.ledger_copy, max_s=-1)
        assert ledger.runs()


@pytest.mark.parametrize("start", [4096, -4096])
def test_a_damaged_copy_is_refused_and_left_where_it_is(state, start):
    with opened(state) as ledger:
        one_run(state, ledger)
    data = bytearray(state.ledger_copy.read_bytes())
    data[start:] = b"?" * len(data[start:])
    state.ledger_copy.write_bytes(data)
    lose(state)
    with pytest.raises(LedgerCopyDamaged, match="move it away"):
        open_ledger(state)
    assert not state.ledger.exists()
    assert state.ledger_copy.exists()


def test_a_ledger_older_than_its_copy_is_refused(state, tmp_path):
    with opened(state) as ledger:
        one_run(state, ledger)
        save_copy(state, ledger.identity)
    older = tmp_path / "older"
    shutil.copytree(state.ledger_folder, older)
    with opened(state) as ledger:
        one_run(state, ledger)
    shutil.rmtree(state.ledger_folder)
    os.rename(older, state.ledger_folder)
    with pytest.raises(LedgerOlder, match="move it away"):
        open_ledger(state)


def test_a_second_service_on_another_host_is_refused_with_the_owner_named(
    state, tmp_path, monkeypatch
):
    with opened(state) as ledger:
        one_run(state, ledger)
    host = read_owner(state).host
    on_another_host(monkeypatch)
    for folder in (state.ledger_folder, tmp_path / "other"):
        other = StateDirectory(state.base, folder)
        with pytest.raises(StateOwned) as caught:
            open_ledger(other)
        for told in (host, str(state.ledger), str(state.owner), "forebay state import", "another"):
            assert told in str(caught.value)
    assert not (tmp_path / "other" / "ledger.sqlite").exists()


def test_a_second_service_with_another_ledger_on_this_host_is_refused(state, tmp_path):
    with opened(state) as ledger:
        one_run(state, ledger)
    for folder in (None, tmp_path / "other"):
        with pytest.raises(StateOwned):
            open_ledger(StateDirectory(state.base, folder))
    with opened(StateDirectory(tmp_path / "new", tmp_path / "other")):
        pass
    with pytest.raises(StateOwned):
        open_ledger(StateDirectory(state.base, tmp_path / "other"))


def test_the_owner_may_not_start_twice(state):
    with opened(state), pytest.raises(LedgerBusy):
        open_ledger(state)


def test_a_state_directory_is_handed_over_by_removing_the_owner_file(state, tmp_path, monkeypatch):
    with opened(state) as ledger:
        first = one_run(state, ledger)
        identity = ledger.identity
    state.owner.unlink()
    with monkeypatch.context() as patch:
        on_another_host(patch)
        other = StateDirectory(state.base, tmp_path / "other")
        with opened(other) as ledger:
            assert ledger.identity == identity
            assert one_run(other, ledger) == first + 1
    with pytest.raises(StateOwned, match="on host another"):  # the old one comes back
        open_ledger(state)


def test_who_lost_the_state_directory_does_not_overwrite_the_new_owners_copy(
    state, tmp_path, monkeypatch
):
    with opened(state) as ledger:
        one_run(state, ledger)
        state.owner.unlink()
        with monkeypatch.context() as patch:
            on_another_host(patch)
            with opened(StateDirectory(state.base, tmp_path / "other")):
                pass
        before = state.ledger_copy.read_bytes()
        with pytest.raises(StateOwned):
            save_copy(state, ledger.identity)
    assert state.ledger_copy.read_bytes() == before


def test_a_ledger_of_another_state_directory_is_not_mixed_with_a_foreign_copy(state, tmp_path):
    with opened(state) as ledger:
        one_run(state, ledger)
    other = StateDirectory(tmp_path / "new", tmp_path / "other")
    with opened(other):
        pass
    state.owner.unlink()
    with pytest.raises(LedgerForeign, match="move the ledger away"):
        open_ledger(StateDirectory(state.base, other.ledger_folder))


def test_of_two_that_claim_at_the_same_time_one_is_refused(state, monkeypatch, tmp_path):
    other = StateDirectory(state.base, tmp_path / "other")
    claim = shards.ledger_home._claim

    def while_another_does(mine, identity):
        monkeypatch.setattr(shards.ledger_home, "_claim", claim)
        with opened(other):
            pass
        claim(mine, identity)

    monkeypatch.setattr(shards.ledger_home, "_claim", while_another_does)
    with pytest.raises(StateOwned):
        open_ledger(state)
    assert read_owner(state).path == str(other.ledger)
    assert not state.ledger.exists()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"version": 2}', b'{"version": 1}'])
def test_an_owner_file_that_says_nothing_is_refused(state, content):
    with opened(state):
        pass
    state.owner.write_bytes(content)
    with pytest.raises(OwnerUnreadable, match="remove that file"):
        open_ledger(state)


def test_a_node_without_the_ledger_reads_the_copy(state, tmp_path):
    with opened(state) as ledger:
        one_run(state, ledger)
        copy = StateDirectory(state.base, tmp_path / "elsewhere").readable_ledger
        assert copy == state.ledger_copy
        assert copy.read_bytes()[18:20] == bytes([1, 1])  # no write-ahead log beside it
        with closing(Ledger(copy, read_only=True)) as reader:
            assert len(reader.runs()) == 1
        assert state.readable_ledger == state.ledger


def test_an_imported_run_is_not_resumed(state):
    with opened(state) as ledger:
        run = one_run(state, ledger)
        with ledger.transaction() as db:
            db.execute("INSERT INTO imported VALUES (?, 0)", (run,))
        with pytest.raises(NotResumable, match="archive"):
            ledger.reopen_run(run, 1)


def test_ledger_copy_and_owner_are_for_their_owner_alone(state):
    mask = os.umask(0)
    try:
        with opened(state) as ledger:
            one_run(state, ledger)
        lose(state)
        with opened(state):
            for folder in (state.base, state.ledger_folder):
                for path in (folder, *folder.iterdir()):
                    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    finally:
        os.umask(mask)


def test_a_ledger_of_another_version_is_not_taken(state):
    with opened(state) as ledger:
        one_run(state, ledger)
    with closing(sqlite3.connect(state.ledger_copy)) as db:
        db.execute("UPDATE meta SET value = '99' WHERE key = 'version'")
        db.commit()
    with pytest.raises(LedgerCopyDamaged, match="another version"):
        take_copy(state.ledger_copy, state.ledger_folder / "new.sqlite")


@pytest.mark.parametrize("has_copy", [True, False])
def test_what_sqlite_left_of_a_lost_ledger_does_not_get_into_the_new_one(state, has_copy):
    log = state.ledger.with_name("ledger.sqlite-wal")
    with opened(state) as ledger:
        one_run(state, ledger)
        if not has_copy:
            state.ledger_copy.unlink()
        for number in range(40):
            ledger.take_epoch(f"role-{number}")
        left = log.read_bytes()
    assert left
    state.ledger.unlink()
    log.write_bytes(left)
    with opened(state) as ledger:
        assert len(ledger.runs()) == has_copy
        assert ledger.query("SELECT * FROM roles") == []
        assert ledger.query("PRAGMA integrity_check")[0][0] == "ok"
