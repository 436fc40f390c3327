"""Which ledger a state directory belongs to, and opening it for writing.

Covers: one owner for a state directory, named in it; a lost ledger taken from its copy; the copy.
Does not cover: how the files are made (ledger_files), two processes on one host (the ledger's
lock).

A ledger inside the state directory goes wherever that goes. One on a node's own disk does not: the
owner file then names host and path, and any other ledger is refused.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from shards.errors import ForebayError
from shards.files import flush_directory, open_private
from shards.ledger import Ledger
from shards.ledger_files import (
    copy_ledger,
    make_empty,
    new_identity,
    newest_run_folder,
    read_mark,
    take_copy,
)
from shards.state import StateDirectory

OWNER_VERSION = 1
OWNER_BYTES_MAX = 16_384
_LOG = logging.getLogger("forebay.ledger")


class StateOwned(ForebayError):
    """Two services for one state directory: (state, owner, this one, the owner file)."""

    template = (
        "state directory {0} belongs to the run ledger {1}, and this is {2}; make sure that"
        " nothing uses that one any more, then remove {3} and start again, which goes on from the"
        " ledger's copy; where there is none, `forebay state import` brings runs from the archive"
    )


class LedgerForeign(ForebayError):
    """The state directory has the files of another ledger: (ledger, its id, copy, its id)."""

    template = (
        "the run ledger {0} ({1}) is not the one whose copy is {2} ({3}): move the ledger away to"
        " go on from the copy, or the copy if its runs are of no more use"
    )


class LedgerOlder(ForebayError):
    """A ledger that came back from somewhere would use numbers twice: (ledger, copy)."""

    template = (
        "the run ledger {0} is older than its own copy {1}: it was brought back from somewhere;"
        " move it away, and the copy is taken instead"
    )


class OwnerUnreadable(ForebayError):
    """The owner file says nothing: (path, why)."""

    template = (
        "{0} does not say whose state directory this is: {1}; make sure that no other service"
        " uses the directory, then remove that file"
    )


@dataclass(frozen=True, slots=True)
class Owner:
    """A ledger and where it is; host is empty for one inside the state directory."""

    ledger: str
    host: str
    path: str

    def place(self) -> tuple[str, str]:
        return self.host, self.path

    def __str__(self) -> str:
        where = f"{self.path} on host {self.host}" if self.host else f"{self.path} inside it"
        return f"{self.ledger}, {where}"


def open_ledger(
    state: StateDirectory,
    identity: str | None = None,
    say: Callable[[str], None] = _LOG.warning,
) -> Ledger:
    """Open the ledger of a state directory for writing.

    If it is lost it is taken from its copy, or made anew, with this identity if one is given.
    """
    state.make()

    def make(path: Path) -> None:
        owner = check_place(state)
        if state.ledger_copy.exists():
            take_copy(state.ledger_copy, path)
            say(
                f"the run ledger {path} was lost and is made from its copy {state.ledger_copy}:"
                " runs after the copy are unknown, and what they saved is sent again"
            )
            return
        name = identity or new_identity()
        # The owner first: a ledger that is not the owner's would be refused.
        if owner is None:
            _claim(state, name)
        else:
            _write_owner(state, _owner(state, name))
        make_empty(path, state.runs, name)

    ledger = Ledger(state.ledger, make=make)
    try:
        check_owner(state, ledger.identity)
        _check_copy(state, ledger)
        if read_owner(state) is None:
            _claim(state, ledger.identity)
        ledger.skip_runs(newest_run_folder(state.runs))
        save_copy(state, ledger.identity)
    except BaseException:
        ledger.close()
        raise
    return ledger


def save_copy(state: StateDirectory, identity: str) -> None:
    """Copy a ledger that lies elsewhere to the state directory, if it still belongs to it."""
    if state.ledger_folder is None:
        return
    check_owner(state, identity)
    copy_ledger(state.ledger, state.ledger_copy)


def check_owner(state: StateDirectory, identity: str) -> None:
    """Refuse a ledger that is not the owner; nobody owns it before its first ledger did."""
    owner = read_owner(state)
    this = _owner(state, identity)
    if owner is not None and owner != this:
        raise _owned(state, owner, this)


def check_place(state: StateDirectory) -> Owner | None:
    """Refuse a ledger that lies elsewhere than the owner's, opening none; return the owner."""
    owner = read_owner(state)
    if owner is not None and owner.place() != _owner(state, "").place():
        raise _owned(state, owner, _owner(state, "a new one"))
    return owner


def read_owner(state: StateDirectory) -> Owner | None:
    """Return who owns the state directory."""
    try:
        with state.owner.open("rb") as file:
            value = json.loads(file.read(OWNER_BYTES_MAX))
        if value["version"] != OWNER_VERSION:
            raise OwnerUnreadable(str(state.owner), f"it has version {value['version']}")
        return Owner(str(value["ledger"]), str(value["host"]), str(value["path"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OwnerUnreadable(str(state.owner), str(error) or "it is damaged") from error


def _owner(state: StateDirectory, identity: str) -> Owner:
    if state.ledger_folder is None:
        return Owner(identity, "", state.ledger.name)
    return Owner(identity, socket.gethostname(), str(state.ledger.absolute()))


def _owned(state: StateDirectory, owner: Owner, this: Owner) -> StateOwned:
    return StateOwned(str(state.base), str(owner), str(this), str(state.owner))


def _check_copy(state: StateDirectory, ledger: Ledger) -> None:
    if not state.ledger_copy.exists():
        return
    copy = read_mark(state.ledger_copy, is_copy=True)
    own = read_mark(state.ledger, is_copy=False)
    assert own is not None, "it was opened for writing"
    if copy is None or copy.identity != own.identity:
        theirs = copy.identity if copy else "unknown"
        raise LedgerForeign(str(state.ledger), own.identity, str(state.ledger_copy), theirs)
    if copy.copies > own.copies:
        raise LedgerOlder(str(state.ledger), str(state.ledger_copy))


def _claim(state: StateDirectory, identity: str) -> None:
    """Become the owner; of two that try at the same time one does."""
    mine = _owner(state, identity)
    draft = _draft(state, mine)
    try:
        os.link(draft, state.owner)
    except FileExistsError:
        check_owner(state, identity)
    finally:
        draft.unlink(missing_ok=True)
    flush_directory(state.base)


def _write_owner(state: StateDirectory, owner: Owner) -> None:
    os.rename(_draft(state, owner), state.owner)
    flush_directory(state.base)


def _draft(state: StateDirectory, owner: Owner) -> Path:
    draft = state.owner.with_name(f".owner.{owner.ledger}.{os.getpid()}.new")
    with open(draft, "wb", opener=open_private) as file:
        file.write(json.dumps({"version": OWNER_VERSION, **asdict(owner)}).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return draft
