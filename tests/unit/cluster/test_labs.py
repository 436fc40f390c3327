"""A lab that several commands use ends with the last of them, unless somebody wants it up."""

import pytest

from cluster import labs
from cluster.settings import Settings


class FakeLab:
    """Counts; a real lab is in tests/system."""

    def __init__(self):
        self.is_up = False

    def up(self, *, devices, socket):
        self.is_up = True

    def down(self):
        self.is_up = False


@pytest.fixture
def lab(monkeypatch):
    lab = FakeLab()
    monkeypatch.setattr(labs, "the_lab", lambda settings, say: lab)
    monkeypatch.setattr(labs, "known_lab", lambda settings: lab)
    return lab


@pytest.fixture
def settings(tmp_path):
    return Settings(tmp_path / "home")


def test_the_last_borrower_stops_it(lab, settings):
    first = labs.borrow_lab(settings, 4, print)
    second = labs.borrow_lab(settings, 4, print)
    first.give_back()
    assert lab.is_up
    second.give_back()
    assert not lab.is_up


def test_lab_up_keeps_it_up_also_when_it_comes_in_between(lab, settings):
    borrowed = labs.borrow_lab(settings, 4, print)
    labs.keep_up(settings, 8, print)
    borrowed.give_back()
    assert lab.is_up
    labs.bring_down(settings)
    assert not lab.is_up
    labs.borrow_lab(settings, 4, print).give_back()
    assert not lab.is_up


def test_a_lab_that_does_not_come_up_is_given_back(lab, settings, monkeypatch):
    def fail(**_):
        raise OSError("no")

    monkeypatch.setattr(lab, "up", fail)
    with pytest.raises(OSError, match="no"):
        labs.borrow_lab(settings, 4, print)
    monkeypatch.undo()
