"""Which jobs a job builds on: Bacula's own selection, and when it cannot be relied on."""

import pytest

from bacula_bridge.catalog import JobRow
from bacula_bridge.chain import BaseUnknown, base_chain, current_chain


def job(number, level, status="T", *, purged=False, tdate=None, kind="B"):
    end = number * 10 if tdate is None else tdate
    return JobRow(
        number, f"j.{number}", "j", kind, level, status, "", "", end, 1, 1, 0, 1, 1, "",
        purged=purged,
    )  # fmt: skip


def ids(rows):
    return [row.job_id for row in rows]


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ("", []),
        ("I", []),  # nothing to build on
        ("F", [1]),
        ("FII", [1, 2, 3]),
        ("FID", [1, 3]),
        ("FIDI", [1, 3, 4]),
        ("FIDIDI", [1, 5, 6]),
        ("FIF", [3]),
        ("FDF", [3]),
        ("FDFI", [3, 4]),
    ],
)
def test_a_chain_is_what_bacula_restores(levels, expected):
    rows = [job(number, level) for number, level in enumerate(levels, 1)]
    assert ids(current_chain(rows)) == expected
    assert ids(current_chain(rows[::-1])) == expected


def test_jobs_that_did_not_end_well_do_not_count():
    rows = [job(1, "F"), job(2, "F", "E"), job(3, "I", "A"), job(4, "I", "W"), job(5, "F", "R")]
    assert ids(current_chain(rows)) == [1, 4]


def test_restores_and_verifies_do_not_count():
    assert ids(current_chain([job(1, "F"), job(2, "F", kind="R"), job(3, "I", kind="V")])) == [1]


def test_a_deleted_job_in_the_middle_is_left_out():
    assert ids(current_chain([job(1, "F"), job(3, "I")])) == [1, 3]


def test_the_base_is_what_the_director_names():
    rows = [job(1, "F"), job(2, "I"), job(3, "D"), job(4, "I")]
    assert base_chain(rows, "F", "") == []
    assert ids(base_chain(rows, "I", "j.4")) == [1, 3, 4]
    assert ids(base_chain(rows, "D", "j.1")) == [1]


@pytest.mark.parametrize(
    ("level", "previous", "words"),
    [("I", "j.2", "newest good one is j.4"), ("D", "j.4", "j.1"), ("I", "", r"\(none\)")],
)
def test_another_base_than_the_catalogs_is_refused(level, previous, words):
    rows = [job(1, "F"), job(2, "I"), job(4, "I")]
    with pytest.raises(BaseUnknown, match=words) as error:
        base_chain(rows, level, previous)
    assert "level=Full" in str(error.value)


def test_a_clock_that_was_set_back_shows_in_the_order_of_ends():
    rows = [job(1, "F", tdate=1000), job(2, "I", tdate=500)]
    with pytest.raises(BaseUnknown, match=r"j\.1"):
        base_chain(rows, "I", "j.2")


def test_without_a_full_there_is_no_base():
    with pytest.raises(BaseUnknown, match="no good Full"):
        base_chain([job(2, "I")], "I", "j.2")


def test_a_purged_base_is_refused():
    with pytest.raises(BaseUnknown, match="JobId 1 were purged"):
        base_chain([job(1, "F", purged=True), job(2, "I")], "I", "j.2")
