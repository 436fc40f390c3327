"""What the tests of the plugin share: the harnesses, places to read from and to write to."""

import os
from pathlib import Path

import pytest

from tests.plugin.backup_support import compile_harness
from tests.plugin.restore_support import RESTORE_SOURCES, Script, compile_c


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


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("harness") / "restore"
    return compile_c(output, "harness_restore.c", RESTORE_SOURCES, "address,undefined")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    tmp_path.chmod(0o755)
    for above in tmp_path.parents:  # so that an unprivileged restore gets here
        if os.stat(above).st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o011)
    path = tmp_path / "place"
    path.mkdir()
    return path


@pytest.fixture
def script(place: Path) -> Script:
    (place.parent / "work").mkdir(mode=0o777)
    (place.parent / "work").chmod(0o777)
    return Script(bytes(place), bytes(place.parent / "work"))
