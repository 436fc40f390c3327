"""Runs of a service: opened for jobs that ask, closed by what the catalog shows.

Covers: opening, waiting for a place, ends, runs that get no more jobs, a coordinator that is
started again, hooks that come twice or never, a service that is being stopped.
Does not cover: Ray and Bacula (tests/system/test_site.py).
"""

import errno
import os
import subprocess
import sys
import threading
import time

import pytest

from bacula_bridge import hook, run_keeper
from bacula_bridge.coordinator import Coordinator
from bacula_bridge.errors import CatalogUnavailable
from bacula_bridge.protocol import Hello
from bacula_bridge.run_keeper import RunKeeper, ServicePolicy
from bacula_bridge.scoping import Scoping
from bacula_bridge.source import JoinLater, JoinRefused
from shards.changes import Gap
from shards.ledger import LedgerClosed
from shards.ledger_schema import JobState, RunState
from shards.shard_jobs import ReceiptsInfo, ShardTaken, StreamSummary
from tests.support.bridge_site import DEADLINE_S, Pause, Site

POLICY = ServicePolicy({"d": 0}, run_idle_s=3600)
IMPATIENT = ServicePolicy({"d": 0}, run_idle_s=0)
RECEIPTS = ReceiptsInfo("0-1.arrow", 1, 2, StreamSummary())


@pytest.fixture
def site(tmp_path):
    one = Site(tmp_path, shards=2, service=POLICY, socket="bridge.sock")
    yield one
    one.close()


def hello(jobid, shard=0, level="F", dataset="d"):
    return Hello(level, shard, 2, jobid, 0, dataset, f"job.{jobid}", "", "fd")


def joined(site, *hellos):
    """Ask as a bridge does until all have a place; return what they got."""
    found = []
    for each in hellos:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            try:
                found.append(site.coordinator.join(each))
                break
            except JoinLater:
                assert time.monotonic() < deadline
    return found


def runs_of(site):
    return site.coordinator._ledger.runs("d")


def begin(site, jobid, shard=0):
    """Let a job be in the catalog that has not ended."""
    site.catalog.add(jobid, shard=shard)
    row = site.catalog.rows.pop()
    site.catalog.rows.append(row.__class__(**{**vars_of(row), "status": "R"}))


def vars_of(row):
    return {name: getattr(row, name) for name in row.__slots__}


def end(site, jobid, status="T"):
    for place, row in enumerate(site.catalog.rows):
        if row.job_id == jobid:
            site.catalog.rows[place] = row.__class__(**{**vars_of(row), "status": status})


def stream(site, run, jobid, shard):
    site.coordinator.streamed(run, shard, jobid, RECEIPTS)


def scan(site):
    site.run = runs_of(site)[0].number
    site.commit([])


def test_the_first_job_opens_a_run_and_the_others_join_it(site):
    one, two = joined(site, hello(1), hello(2, shard=1))
    assert one.accept.run == two.accept.run
    (run,) = runs_of(site)
    assert (run.level, run.state) == ("full", RunState.OPEN)


def test_many_jobs_at_once_open_one_run(site):
    found = []
    threads = [
        threading.Thread(target=lambda k=k: found.extend(joined(site, hello(k + 1, shard=k))))
        for k in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(found) == 2
    assert len(runs_of(site)) == 1


def test_a_run_is_closed_when_the_catalog_shows_that_all_shards_are_saved(site, monkeypatch):
    monkeypatch.setattr(Coordinator, "_merkle", lambda *_: b"m")
    for k in range(2):
        begin(site, k + 1, shard=k)
    (one, _) = joined(site, hello(1), hello(2, shard=1))
    scan(site)
    for k in range(2):
        stream(site, one.accept.run, k + 1, k)
    site.coordinator.tick()
    assert runs_of(site)[0].state is RunState.OPEN  # receipts alone count for nothing
    end(site, 1)
    site.coordinator.tick()
    assert runs_of(site)[0].state is RunState.OPEN
    end(site, 2)
    site.coordinator.tick()
    assert runs_of(site)[0].state is RunState.COMPLETE


def test_a_job_whose_shard_is_taken_waits_for_the_next_run(site, monkeypatch):
    monkeypatch.setattr(Coordinator, "_merkle", lambda *_: b"m")
    for k in range(2):
        begin(site, k + 1, shard=k)
    one, _ = joined(site, hello(1), hello(2, shard=1))
    with pytest.raises(JoinLater, match="has its shard 0 from JobId 1"):
        site.coordinator.join(hello(3))
    scan(site)
    for k in range(2):
        stream(site, one.accept.run, k + 1, k)
        end(site, k + 1)
    site.coordinator.tick()
    (next_one,) = joined(site, hello(3))
    assert next_one.accept.run > one.accept.run


def test_a_run_waits_for_jobs_that_bacula_has_still_to_run(tmp_path):
    site = Site(tmp_path, shards=2, service=IMPATIENT)
    begin(site, 1)
    begin(site, 2, shard=1)
    joined(site, hello(1))
    site.coordinator.broken(runs_of(site)[0].number, 0, 1, "its File Daemon died")
    end(site, 1, "f")
    site.coordinator.tick()
    assert runs_of(site)[0].state is RunState.OPEN
    end(site, 2, "A")
    site.coordinator.tick()
    site.coordinator.tick()
    run = runs_of(site)[0]
    assert run.state is RunState.FAILED
    assert "its File Daemon died" in run.reason
    assert "no job saved it" in run.reason
    site.close()


def test_a_job_that_comes_while_a_run_is_found_to_be_over_is_in_it(tmp_path, monkeypatch):
    site = Site(tmp_path, shards=2, service=IMPATIENT)
    begin(site, 1)
    (one,) = joined(site, hello(1))
    end(site, 1, "f")
    pause, look = Pause(), RunKeeper._has_jobs_to_come

    def look_and_wait(*arguments):
        found = look(*arguments)
        pause()
        return found

    monkeypatch.setattr(RunKeeper, "_has_jobs_to_come", look_and_wait)
    with pause.during(site.coordinator.tick):
        (two,) = joined(site, hello(2, shard=1))
    assert two.accept.run == one.accept.run
    assert runs_of(site)[0].state is RunState.OPEN
    site.close()


def test_a_run_is_not_closed_under_a_job_that_is_about_to_claim_its_shard(tmp_path, monkeypatch):
    site = Site(tmp_path, shards=2, service=IMPATIENT)
    check = Scoping.check

    def others_go_on_and_check(*arguments):
        with site.coordinator._others_may_go_on():
            site.coordinator.tick()
        return check(*arguments)

    monkeypatch.setattr(Scoping, "check", others_go_on_and_check)
    (one,) = joined(site, hello(1))
    run = runs_of(site)[0]
    assert (run.number, run.state) == (one.accept.run, RunState.OPEN)
    site.close()


def test_a_job_that_waits_for_the_next_run_does_not_keep_the_present_one_open(tmp_path):
    site = Site(tmp_path, shards=2, service=IMPATIENT)
    begin(site, 1)
    (one,) = joined(site, hello(1))
    stream(site, one.accept.run, 1, 0)
    begin(site, 3)
    with pytest.raises(JoinLater):
        site.coordinator.join(hello(3))
    end(site, 1)
    site.coordinator.tick()
    site.coordinator.tick()
    assert runs_of(site)[0].state is RunState.INCOMPLETE
    site.close()


def test_a_shard_whose_job_failed_is_free_for_another_job_of_the_same_run(site):
    begin(site, 1)
    one, *_ = joined(site, hello(1))
    end(site, 1, "f")
    site.coordinator.tick()
    (again,) = joined(site, hello(2))
    assert again.accept.run == one.accept.run


def test_runs_go_on_under_a_coordinator_that_is_started_again(site):
    begin(site, 1)
    one, *_ = joined(site, hello(1))
    site.coordinator.close()
    site.coordinator = Coordinator(site.state, site.catalog, service=POLICY)
    assert runs_of(site)[0].state is RunState.OPEN
    stream(site, one.accept.run, 1, 0)
    (job,) = site.coordinator.status(one.accept.run).jobs
    assert job.state is JobState.STREAMED


def test_a_question_whose_answer_was_lost_is_answered_again(site):
    one, *_ = joined(site, hello(1))
    assert site.coordinator.join(hello(1), again=True).accept.run == one.accept.run
    stream(site, one.accept.run, 1, 0)
    stream(site, one.accept.run, 1, 0)
    with pytest.raises(JoinRefused, match=ShardTaken.template.split("{")[0].strip()):
        site.coordinator.join(hello(1), again=True)


def test_a_second_connection_of_a_job_is_refused(site):
    joined(site, hello(1))
    with pytest.raises(JoinRefused):
        site.coordinator.join(hello(1))


def test_a_run_that_cannot_be_opened_is_refused_once_and_tried_anew(site, monkeypatch):
    def fail(*_):
        raise Gap("the log is gone")

    monkeypatch.setattr(site.coordinator, "open_run", fail)
    with pytest.raises(JoinRefused, match="the log is gone"):
        joined(site, hello(1))
    with pytest.raises(JoinRefused, match="the log is gone"):
        site.coordinator.join(hello(2, shard=1))  # it waited for the same
    monkeypatch.undo()
    monkeypatch.setattr(run_keeper, "WAITING_S", 0.0)
    assert joined(site, hello(3))[0].accept.run


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (ZeroDivisionError(), "a bug; the coordinator's log has it"),
    ],
)
def test_no_job_waits_for_a_run_that_could_not_be_opened(site, monkeypatch, error, said):
    def fail(*_):
        raise error

    monkeypatch.setattr(Coordinator, "open_run", fail)
    with pytest.raises(JoinRefused, match=said):
        joined(site, hello(1))


def test_whoever_waits_for_a_coordinator_that_is_closed_can_ask_the_next_one(site):
    begin(site, 1)
    (one,) = joined(site, hello(1))
    found = []

    def ask(question, *arguments):
        try:
            question(*arguments)
        except LedgerClosed as error:
            found.append(error)

    questions = [(site.coordinator.segments, one.accept.run, 0, DEADLINE_S)]
    # Its shard is taken: it waits for the next run.
    questions.append((joined, site, hello(2)))
    threads = [threading.Thread(target=ask, args=each) for each in questions]
    for thread in threads:
        thread.start()
    site.coordinator.close()
    for thread in threads:
        thread.join(DEADLINE_S)
    assert len(found) == len(questions)
    site.coordinator = Coordinator(site.state, site.catalog, service=POLICY)


def test_a_service_that_was_to_be_stopped_may_go_on(site):
    site.coordinator.drain()
    assert site.coordinator.draining
    site.coordinator.drain(False)
    joined(site, hello(1))


def test_a_job_waits_while_the_catalog_cannot_be_read(site, monkeypatch):
    def away(*_):
        raise CatalogUnavailable("bacula.db", "it is away")

    joined(site, hello(2, shard=1))
    with monkeypatch.context() as patched:
        patched.setattr(site.coordinator._finder, "find", away)
        with pytest.raises(JoinLater, match="it is away"):
            site.coordinator.join(hello(1))
    assert joined(site, hello(1))


def test_an_unknown_dataset_is_refused(site):
    with pytest.raises(JoinRefused, match="is not in the configuration"):
        site.coordinator.join(hello(1, dataset="other"))


def test_a_service_that_is_being_stopped_opens_no_run(site):
    assert site.coordinator.drain() == []
    with pytest.raises(JoinRefused, match="is being stopped"):
        site.coordinator.join(hello(1))


def test_a_job_waits_on_its_connection_and_is_refused_in_the_end(tmp_path):
    site = Site(tmp_path, shards=1, service=POLICY, join_wait_s=1.0)
    joined(site, Hello("F", 0, 1, 1, 0, "d", "job.1", "", "fd"))
    with site.client() as client:
        assert "this job has waited 1 s" in client.hello(jobid=2)
    site.close()


def test_hooks_are_answered_and_change_nothing(site, tmp_path, capsys):
    config = tmp_path / "forebay.toml"
    config.write_text(f'runtime = "{site.socket.parent}"\n')
    for _ in range(2):
        for when in ("before", "after"):
            arguments = [when, "--jobid", "7", "--job", "job.7", "--config", str(config)]
            assert hook.main(arguments) == 0
    assert capsys.readouterr().out == ""
    assert runs_of(site) == []


def test_a_hook_without_a_service_says_so_and_only_the_first_one_fails(tmp_path, capsys):
    config = tmp_path / "forebay.toml"
    config.write_text(
        f'runtime = "{tmp_path}"\n[ray]\ndashboard = "http://127.0.0.1:1"\ntoken_file = ""\n'
    )
    about = ["--jobid", "7", "--job", "job.7", "--config", str(config)]
    assert hook.main(["before", *about]) == 1
    assert "no Forebay service answers on this mover" in capsys.readouterr().out
    assert hook.main(["after", *about]) == 0


class JobServer:
    """Stands for Ray's job server: submissions by name, the next answers to a submission."""

    def __init__(self, monkeypatch, *refusals):
        self.jobs = {}
        self.refusals = list(refusals)
        monkeypatch.setattr(hook, "_ask", self.ask)

    def ask(self, config, method, path, body):
        if path == "/api/jobs/" and method == "GET":
            return [{"submission_id": name, **job} for name, job in self.jobs.items()]
        if method == "POST":
            if self.refusals:
                raise hook.HookFailed(self.refusals.pop(0))
            self.jobs.setdefault(body["submission_id"], {"status": "RUNNING"})
            return None
        if path.endswith("/logs"):
            return {"logs": "a line\nforebay: what was wrong\n"}
        return self.jobs[path.rpartition("/")[2]]


def test_hooks_choose_one_name_for_a_submission(monkeypatch):
    server = JobServer(monkeypatch)
    server.jobs = {None: {"status": "SUCCEEDED"}, "forebay-serve-4": {"status": "FAILED"}}
    assert {hook._start({"": "/c"}) for _ in range(2)} == {"forebay-serve-5"}
    server.jobs["forebay-serve-5"]["status"] = "STOPPED"
    assert hook._start({"": "/c"}) == "forebay-serve-6"


def test_a_hook_asks_again_while_ray_is_starting(monkeypatch):
    soon = "500 No available agent to submit job, please try again later.."
    JobServer(monkeypatch, *[soon] * (hook.SUBMIT_TRIES - 1))
    assert hook._start({"": "/c"}) == "forebay-serve-1"
    for refusals in ([soon] * hook.SUBMIT_TRIES, ["401 Unauthorized"]):
        JobServer(monkeypatch, *refusals)
        with pytest.raises(hook.HookFailed):
            hook._start({"": "/c"})


def test_a_hook_starts_a_service_that_has_ended_well_meanwhile(monkeypatch):
    server = JobServer(monkeypatch)
    server.jobs = {"forebay-serve-1": {"status": "RUNNING"}}
    assert hook._start({"": "/c"}) == "forebay-serve-1"
    server.jobs["forebay-serve-1"]["status"] = "SUCCEEDED"  # `forebay stop` was on its way
    told = iter([False, False, True])
    monkeypatch.setattr(hook, "_tell", lambda path, frame: next(told))
    monkeypatch.setattr(hook, "LOOK_PERIOD_S", -1.0)
    hook._await("/s", b"", {"": "/c"}, "forebay-serve-1")
    assert server.jobs["forebay-serve-2"] == {"status": "RUNNING"}


def test_a_hook_says_why_its_submission_failed(monkeypatch, tmp_path):
    server = JobServer(monkeypatch)
    name = hook._start({"": "/c"})
    server.jobs[name]["status"] = "FAILED"
    monkeypatch.setattr(hook, "LOOK_PERIOD_S", 0.0)
    monkeypatch.setattr(hook, "START_POLL_S", 0.0)
    with pytest.raises(hook.HookFailed, match=r"serve-1\): forebay: what was wrong"):
        hook._await(str(tmp_path / "none.sock"), b"", {}, name)


@pytest.mark.parametrize(
    "arguments",
    [[], ["during"], ["before"], ["before", "--jobid", "x"], ["before", "--what", "7"]],
)
def test_a_hook_that_is_called_wrongly_says_how(arguments, capsys):
    with pytest.raises(SystemExit, match="2"):
        hook.main(arguments)
    assert "usage: forebay hook" in capsys.readouterr().err


def test_a_hook_imports_nothing_but_the_standard_library():
    code = (
        "import sys; from bacula_bridge import hook;"
        "ours = {'bacula_bridge', 'bacula_bridge.hook'};"
        "print({n.split('.')[0] for n in set(sys.modules) - ours} - set(sys.stdlib_module_names))"
    )
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    argv = [sys.executable, "-S", "-c", code]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=True)
    assert set(done.stdout.split("'")[1::2]) <= {"__main__", "sitecustomize"}, done.stdout
