"""A Ray that is not up in the time that it gives itself: tried once more, then a sentence.

Does not cover: a Ray that starts (tests/cluster, tests/system).
"""

import pytest

from cluster import embedded
from cluster.embedded import EmbeddedCluster, RayTooSlow
from cluster.settings import Settings

SLOW = "The current node timed out during startup. This could happen because ..."


@pytest.fixture
def starting(tmp_path, monkeypatch):
    """Yield a cluster, how its Ray starts each time, and the folders that it was given."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setattr(embedded._Interruption, "install", lambda self: None)
    answers, folders = [], []

    def init(**options):
        folders.append(options["_temp_dir"])
        if answers:
            raise answers.pop(0)

    monkeypatch.setattr(embedded.ray, "init", init)
    cluster = EmbeddedCluster(Settings(tmp_path / "home"))
    yield cluster, answers, folders
    cluster._settings.runtime.rmdir()


def test_a_slow_ray_is_tried_once_more_in_another_folder(starting):
    cluster, answers, folders = starting
    answers.append(Exception(SLOW))
    cluster._start_ray()
    assert len(set(folders)) == 2


def test_a_ray_that_stays_slow_is_told_in_a_sentence(starting):
    cluster, answers, _ = starting
    answers += [Exception(SLOW), Exception(SLOW)]
    with pytest.raises(
        RayTooSlow, match=r"timed out during startup.*when the machine is less busy"
    ):
        cluster._start_ray()


def test_a_bug_is_no_slow_ray(starting):
    cluster, answers, folders = starting
    answers.append(AssertionError("a bug"))
    with pytest.raises(AssertionError, match="a bug"):
        cluster._start_ray()
    assert len(folders) == 1
