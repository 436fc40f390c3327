"""The private Bacula of this installation.

Covers: finding its programs, bringing it up for one command, ending it with the last command that
needs it unless somebody wants it up.
Does not cover: what a lab is (bacula_bridge.lab).
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from dataclasses import dataclass

from bacula_bridge import programs
from bacula_bridge.errors import LabNotRunning
from bacula_bridge.lab import Lab
from bacula_bridge.lab_state import LabStatus
from cluster.settings import Settings


@dataclass(frozen=True, slots=True)
class BorrowedLab:
    """A lab that is up for a command; others may use it at the same time."""

    lab: Lab
    settings: Settings
    lock: int  # descriptor with a shared lock, which every borrower holds

    def give_back(self) -> None:
        """Stop the daemons if nobody else needs them and `lab up` did not ask for them."""
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not self.settings.lab_kept.exists():
                self.lab.down()
        except BlockingIOError:
            return  # another command uses it, and will stop it
        finally:
            os.close(self.lock)


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


def keep_up(settings: Settings, drives: int, say: Callable[[str], None]) -> LabStatus:
    """Bring the lab up until `lab down`."""
    lab = the_lab(settings, say)
    status = lab.up(devices=drives, socket=str(settings.socket))
    settings.lab_kept.touch(mode=0o600)
    return status


def bring_down(settings: Settings) -> Lab:
    """Stop the lab, running jobs included."""
    lab = known_lab(settings)
    settings.lab_kept.unlink(missing_ok=True)
    lab.down()
    return lab


def borrow_lab(settings: Settings, shards: int, say: Callable[[str], None]) -> BorrowedLab:
    """Bring the lab up with a drive for each shard."""
    lab = the_lab(settings, say)
    settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(settings.home / "lab.users", flags, mode=0o600)
    fcntl.flock(lock, fcntl.LOCK_SH)
    borrowed = BorrowedLab(lab, settings, lock)
    try:
        lab.up(devices=shards, socket=str(settings.socket))
    except BaseException:
        borrowed.give_back()
        raise
    return borrowed
