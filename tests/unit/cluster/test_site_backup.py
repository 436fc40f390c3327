"""`forebay backup` at a site: its jobs outlive what only shows them, and end with a Ctrl-C.

Does not cover: a real service and Director (tests/system/test_site, test_site_faults).
"""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from actors.calls import ActorGone, ActorStarting
from bacula_bridge.errors import CatalogUnavailable
from cluster import site_backup
from cluster.progress import SilentDisplay
from cluster.site_backup import CATALOG_WAIT_S, SiteRequest, back_up

JOBIDS = [11, 12]
AWAY = CatalogUnavailable("catalog.db", "it is locked")
GONE = ActorGone("the coordinator", "it died")


@dataclass
class Row:
    job_id: int
    ended: bool


class World:
    """A catalog, a coordinator and a Director that say what a test lets them say."""

    def __init__(self):
        self.catalog, self.coordinator, self.bridges = [], [], []
        self.said, self.cancelled, self.asked = [], [], []
        self.now = 0.0
        self.record = object()

    def next(self, answers, last):
        answer = answers.pop(0) if answers else last
        if isinstance(answer, BaseException):
            raise answer
        return answer

    # What site_backup calls

    def jobs(self, jobids):
        ended = self.next(self.catalog, True)
        return {jobid: Row(jobid, ended) for jobid in jobids}

    def ask(self, method):
        self.asked.append(method)
        return self.next(self.coordinator, [])

    def run_jobs(self, names, level, client):
        return JOBIDS

    def cancel(self, jobids):
        self.cancelled += jobids

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


@pytest.fixture
def world(monkeypatch):
    world = World()
    replaced = {
        "site_director": lambda site: world,
        "site_catalog": lambda site: world,
        "open_runs": lambda site: [],
        "bridges": lambda site: world.next(world.bridges, []),
        "NamedActor": lambda name, whom: world,
        "_closed": lambda settings, wanted, rows: rows,
        "time": world,
    }
    for name, value in replaced.items():
        monkeypatch.setattr(site_backup, name, value)
    return world


def run(world):
    display = SilentDisplay()
    display.say = world.said.append
    ledger = SimpleNamespace(exists=lambda: True)
    settings = SimpleNamespace(site=object(), state=SimpleNamespace(ledger=ledger))
    wanted = SiteRequest(SimpleNamespace(name="d"), (0, 1), "Full")
    rows = back_up(settings, wanted, display)
    assert [row.job_id for row in rows] == JOBIDS
    return world.said[1:]


def test_jobs_are_followed_until_the_catalog_saw_them_end(world):
    world.catalog += [False, False]
    assert run(world) == []
    assert world.asked == ["open_runs"] * 2
    assert world.cancelled == []


@pytest.mark.parametrize("trouble", [GONE, ActorStarting("the coordinator")])
def test_a_service_that_is_away_is_told_once_and_costs_no_job(world, trouble):
    world.catalog += [False] * 5
    world.coordinator += [[], trouble, trouble]
    away, back = run(world)
    assert str(trouble) in away
    assert back == "the service answers again"
    assert world.cancelled == []


def test_a_bridge_that_is_being_started_costs_no_job(world):
    world.catalog += [False] * 3
    world.bridges += [ActorStarting("the bridge of m1")]
    assert len(run(world)) == 2
    assert world.cancelled == []


def test_a_catalog_that_is_away_is_waited_for(world):
    world.catalog += [False, AWAY, AWAY, False, AWAY]
    assert len(run(world)) == 4
    assert world.cancelled == []


def test_a_catalog_that_stays_away_ends_the_following_but_no_job(world):
    world.catalog += [False, *[AWAY] * int(CATALOG_WAIT_S + 60)]
    with pytest.raises(CatalogUnavailable):
        run(world)
    assert world.now >= CATALOG_WAIT_S
    assert world.cancelled == []


@pytest.mark.parametrize("end", [KeyboardInterrupt(), SystemExit(15)])
def test_whoever_interrupts_it_ends_the_jobs(world, end):
    world.catalog += [False]
    world.coordinator += [end]
    with pytest.raises(type(end)):
        run(world)
    assert world.cancelled == JOBIDS


def test_a_bug_in_what_is_shown_costs_no_job(world):
    world.catalog += [False]
    world.coordinator += [AssertionError("a bug")]
    with pytest.raises(AssertionError):
        run(world)
    assert world.cancelled == []
