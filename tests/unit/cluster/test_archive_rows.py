"""Rows of a run from outside: checked before anything is done with them."""

import json
from contextlib import closing

import pytest

from shards.ledger_home import open_ledger
from shards.run_rows import RowsForeign, RunRows, insert_run_rows
from tests.support.archive_site import empty_state, rows_of


def test_rows_of_an_archive_cannot_name_files_elsewhere(state):
    rows = rows_of(state, 2).to_json()
    for table, column, value in (
        ("segments", "name", "../../evil"),
        ("segments", "name", "a/b"),
        ("segments", "name", ""),
        ("segments", "name", ".hidden"),
        ("jobs", "receipts", "/etc/passwd"),
        ("segments", "run", 3),
        ("segments", "lease", 99),
        ("runs", "state", "open"),
        ("runs", "dataset", "other"),
        ("datasets", "name", [1]),
    ):
        changed = json.loads(json.dumps(rows))
        changed[table][0][column] = value
        with pytest.raises(RowsForeign):
            RunRows.from_json(changed, 2)
    for value in (None, [], {}, {"runs": 1}, rows | {"runs": []}, rows | {"leases": None}):
        with pytest.raises(RowsForeign):
            RunRows.from_json(value, 2)
    assert RunRows.from_json(rows, 2) == rows_of(state, 2)


def test_rows_that_the_ledger_does_not_take_change_nothing(state, tmp_path):
    target = empty_state(tmp_path / "new")
    with closing(open_ledger(target)) as ledger:
        for column, value in (("evil); --", 1), ("shards", "many")):
            rows = rows_of(state, 2)
            rows.tables["runs"][0][column] = value
            with pytest.raises(RowsForeign):
                insert_run_rows(ledger, rows)
        assert ledger.runs() == []
        assert ledger.datasets() == []


def test_a_dataset_of_another_root_is_not_mixed_in(state, tmp_path):
    target = empty_state(tmp_path / "new")
    with closing(open_ledger(target)) as ledger:
        insert_run_rows(ledger, rows_of(state, 1))
        rows = rows_of(state, 2)
        rows.tables["datasets"][0]["root"] = b"/other"
        with pytest.raises(RowsForeign, match="another root"):
            insert_run_rows(ledger, rows)
