"""What a Director says, and what we make of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bacula_bridge import console, director
from bacula_bridge.catalog import Catalog, JobRow
from bacula_bridge.director import Director, JobProgress
from bacula_bridge.errors import BadValue, ConsoleTimeout, JobRefused, JobsTimeout

GREETING = (
    "Connecting to Director 127.0.0.1:9101\n"
    "1000 OK: 10002 forebay-dir Version: 15.0.3 (25 March 2025)\n"
    "Enter a period to cancel a command.\n"
)
REFUSED = (
    GREETING
    + 'run job="a" level=Full yes\nUsing Catalog "forebay"\nJob queued. JobId=7\n'
    + 'run job="nope" level=Full yes\nJob "nope" not found\n'
    + "The defined Job resources are:\n     1: forebay-restore\nSelect Job resource (1-1): quit\n"
)


def running(*rows: dict) -> str:
    return json.dumps({"running": rows, "error": 0, "errmsg": ""}) + "\n"


class FakeCatalog(Catalog):
    """A catalog whose jobs are given, one state for each look; the last one stays."""

    def __init__(self, looks: list[dict[int, str]]) -> None:
        super().__init__(Path("/nonexistent"))
        self.looks = looks

    def jobs(self, job_ids):
        states = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return {
            job: JobRow(job, f"j.{job}", "j", "B", "F", status, "", "", 0, 5, 50, 0, 1, 1, "")
            for job, status in states.items()
        }


def scripted(answers: list[str], asked: list[str]):
    def ask(commands: str, timeout_s: float) -> str:
        asked.append(commands)
        return GREETING + (answers.pop(0) if len(answers) > 1 else answers[0])

    return ask


def test_jobs_are_started_in_one_call_and_their_ids_come_in_order():
    asked: list[str] = []
    answer = "run\nJob queued. JobId=12\nrun\nJob queued. JobId=13\n"
    client = Director(scripted([answer], asked), FakeCatalog([{}]))
    assert client.run_jobs(["a", "b c"], "Incremental") == [12, 13]
    assert asked == ['run job="a" level=Incremental yes\nrun job="b c" level=Incremental yes']


def test_a_refused_job_is_told_in_the_directors_words_and_the_others_are_cancelled():
    asked: list[str] = []
    client = Director(scripted([REFUSED, ""], asked), FakeCatalog([{}]))
    with pytest.raises(JobRefused, match=r'job nope: Job "nope" not found$'):
        client.run_jobs(["a", "nope", "b"])
    assert asked[1:] == ["cancel jobid=7 yes"]


@pytest.mark.parametrize("name", ["", 'a" yes\ncancel', "a\nb", "a;b", "x" * 128])
def test_a_name_cannot_smuggle_a_command_into_the_console(name: str):
    client = Director(scripted([""], []), FakeCatalog([{}]))
    with pytest.raises(BadValue):
        client.run_jobs([name])
    with pytest.raises(BadValue):
        client.run_restores([Path("/x.bsr")], "/two\nlines")


def test_a_restore_names_bootstrap_place_and_mode_quoted():
    asked: list[str] = []
    client = Director(scripted(["Job queued. JobId=3\n"], asked), FakeCatalog([{}]))
    assert client.run_restores([Path('/b "1".bsr')], "/to here", "never") == [3]
    assert asked == [
        'run job="forebay-restore" bootstrap="/b \\"1\\".bsr" client="forebay-fd" '
        'storage="forebay-sd" where="/to here" replace=never yes'
    ]
    assert director.restore_command([1, 2], "/to", "ifnewer") == (
        'restore client="forebay-fd" jobid=1,2 where="/to" replace=ifnewer all done yes'
    )


def test_progress_joins_the_directors_status_with_the_file_daemons_counts():
    answer = (
        ".status dir running\n"
        + running({"jobid": 1, "status": "R", "jobfiles": 0, "jobbytes": 0}, {"jobid": 9})
        + running(
            {"jobid": 1, "status": "R", "jobfiles": 4, "jobbytes": 70, "processing_file": "/x"},
            {"directorconnected_epoch": 1, "dirtls": 1},
        )
    )
    client = Director(scripted([answer], []), FakeCatalog([{}]))
    assert client.progress([1]) == {1: JobProgress(1, "R", 4, 70, 0, "/x")}


@pytest.mark.parametrize(
    "row", [{}, {"jobid": "x"}, {"jobid": 0}, {"jobid": 1, "jobfiles": [1]}, {"jobid": None}]
)
def test_a_row_that_is_not_about_a_job_is_passed_over(row: dict):
    assert director.parse_progress(row) is None


def test_follow_ends_when_the_catalog_has_the_end_and_the_director_lists_the_job_no_more():
    answers = [
        running({"jobid": 1, "status": "R", "jobfiles": 3, "jobbytes": 30}, {"jobid": 2}),
        running({"jobid": 1, "status": "T", "jobfiles": 0, "jobbytes": 0}),
        running(),
    ]
    looks = [{1: "R", 2: "R"}, {1: "T", 2: "E"}]
    seen: list[JobProgress] = []
    client = Director(scripted(answers, []), FakeCatalog(looks))
    rows = client.follow([2, 1], seen.append, timeout_s=5, period_s=0)
    assert [(row.job_id, row.status, row.good) for row in rows] == [(2, "E", False), (1, "T", True)]
    assert [each.files for each in seen if each.job_id == 1] == [3, 3, 5]


def test_follow_names_the_jobs_that_did_not_end_in_time():
    client = Director(scripted([running()], []), FakeCatalog([{1: "T", 2: "R"}]))
    with pytest.raises(JobsTimeout, match=r"job\(s\) 2 did not end"):
        client.follow([1, 2], timeout_s=0)


def test_a_look_that_fails_does_not_end_the_following_but_many_do():
    calls = []

    def ask(commands: str, timeout_s: float) -> str:
        calls.append(commands)
        if len(calls) in failing:
            raise ConsoleTimeout(timeout_s, "nothing")
        return GREETING + running()

    client = Director(ask, FakeCatalog([{1: "R"}, {1: "R"}, {1: "T"}]))
    failing = {1, 3}
    assert client.follow([1], timeout_s=5, period_s=0)[0].status == "T"
    failing = set(range(100))
    calls.clear()
    with pytest.raises(ConsoleTimeout):
        client.follow([1], timeout_s=5, period_s=0)
    assert len(calls) == director.LOOK_FAILURES_MAX


def test_only_whole_json_lines_of_an_answer_are_read():
    answer = 'echo {"running":[1]}\n{"running":[{"jobid":1},3]}\n{broken\n{"running":{}}\n[1]\n'
    assert console.json_lists(answer, "running") == [{"jobid": 1}]


def test_a_refused_reload_is_noticed():
    assert console.reload_refusal(GREETING + "reload\nquit\n") == ""
    words = "Please correct configuration file: /c/dir.conf\nResetting previous configuration.\n"
    assert "Please correct" in console.reload_refusal(GREETING + "reload\n" + words)
