"""A state directory with three runs, and archives of it."""

import shutil

import fsspec
import pytest

from tests.support.archive_site import archived, empty_state, make_home


@pytest.fixture(scope="session")
def origin(tmp_path_factory):
    """A state directory that no test changes."""
    return make_home(tmp_path_factory.mktemp("origin"))


@pytest.fixture
def state(origin, tmp_path):
    """A state directory of the test's own."""
    shutil.copytree(origin.base, tmp_path / "home" / "state")
    return empty_state(tmp_path / "home")


@pytest.fixture(params=["file", "memory"])
def url(request, tmp_path):
    if request.param == "file":
        yield f"file://{tmp_path}/archive"
    else:
        fsspec.filesystem("memory").store.clear()
        yield "memory://bucket/archive"
        fsspec.filesystem("memory").store.clear()


@pytest.fixture
def store(state, tmp_path):
    """An archive of all runs, in files."""
    return archived(state, f"file://{tmp_path}/archive")
