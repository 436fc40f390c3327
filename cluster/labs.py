"""The private Bacula of this installation.

Covers: finding its programs, bringing it up for one command and leaving it as it was.
Does not cover: what a lab is (bacula_bridge.lab).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bacula_bridge import programs
from bacula_bridge.errors import LabNotRunning
from bacula_bridge.lab import Lab
from cluster.settings import Settings


@dataclass(frozen=True, slots=True)
class BorrowedLab:
    """A lab that is up; give_back() leaves it as it was found."""

    lab: Lab
    was_up: bool

    def give_back(self) -> None:
        """Stop the daemons unless somebody had started them before."""
        if not self.was_up:
            self.lab.down()


def the_lab(settings: Settings, say: Callable[[str], None]) -> Lab:
    """Return the lab, its programs provisioned, its plugin built; it need not be up."""
    plugin = settings.plugin()
    found = programs.ensure(programs.default_cache(), progress=say)
    return Lab(settings.lab, found, plugin)


def known_lab(settings: Settings) -> Lab:
    """Return the lab as it is; LabNotRunning if its programs were never provisioned."""
    found = programs.installed() or programs.cached(programs.default_cache())
    if found is None:
        raise LabNotRunning(str(settings.lab))
    return Lab(settings.lab, found)


def borrow_lab(settings: Settings, shards: int, say: Callable[[str], None]) -> BorrowedLab:
    """Bring the lab up with a drive for each shard."""
    lab = the_lab(settings, say)
    was_up = lab.status().running
    lab.up(devices=shards, socket=str(settings.socket))
    return BorrowedLab(lab, was_up)
