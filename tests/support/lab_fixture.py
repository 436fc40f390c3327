"""A private Bacula for tests: import these fixtures into a conftest.py.

Covers: Bacula's programs, fetched once into the user's cache; labs that are down again at the end.
Does not cover: a bridge behind the socket; the test makes one if its jobs use the plugin.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bacula_bridge import programs
from bacula_bridge.lab import PLUGIN_SOURCE, Lab
from bacula_bridge.programs import Programs

LabMaker = Callable[..., Lab]


@pytest.fixture(scope="session")
def bacula_programs() -> Programs:
    """Bacula's programs: the installed ones, else the copy in the user's cache."""
    return programs.ensure(progress=print)


def labs_below(base: Path, found: Programs) -> Iterator[LabMaker]:
    """Yield a function that makes labs below a folder; they are all ended afterwards.

    make(name="lab", devices=4, socket=None, plugin=..., up=True). A socket's path must be short,
    which a test's own folder is not: the default is one in a fresh folder of its own.
    """
    labs: list[Lab] = []
    folders: list[str] = []

    def make(
        name: str = "lab",
        *,
        devices: int = 4,
        socket: str | None = None,
        plugin: Path = PLUGIN_SOURCE,
        up: bool = True,
    ) -> Lab:
        lab = Lab(base / name, found, plugin)
        labs.append(lab)
        if socket is None:
            folders.append(tempfile.mkdtemp(prefix="fb-"))
            socket = f"{folders[-1]}/bridge.sock"
        if up:
            lab.up(devices=devices, socket=socket)
        return lab

    try:
        yield make
    finally:
        for lab in labs:
            lab.down()
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def make_lab(tmp_path: Path, bacula_programs: Programs) -> Iterator[LabMaker]:
    """Make any number of labs in the test's folder."""
    yield from labs_below(tmp_path, bacula_programs)


@pytest.fixture
def lab(make_lab: LabMaker) -> Lab:
    """A fresh lab that is up, with the built plugin if there is one."""
    return make_lab()


@pytest.fixture(scope="module")
def module_lab(
    tmp_path_factory: pytest.TempPathFactory, bacula_programs: Programs
) -> Iterator[Lab]:
    """A lab that is up and that all tests of a module share."""
    makers = labs_below(tmp_path_factory.mktemp("lab"), bacula_programs)
    try:
        yield next(makers)()
    finally:
        makers.close()
