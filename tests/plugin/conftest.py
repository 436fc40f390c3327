"""What the tests of the plugin's backup side share."""

from pathlib import Path

import pytest

from tests.plugin.backup_support import compile_harness


@pytest.fixture(scope="session", params=["address,undefined", "thread"])
def backup_harness(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    return compile_harness(tmp_path_factory.mktemp("harness") / "backup", request.param)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    path = tmp_path / "out"
    path.mkdir()
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    path.mkdir()
    return path
