"""Changes looked up through a real reader, on the filesystem of the temporary folder."""

from __future__ import annotations

import ctypes
import mmap
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from filesystems.fanotify import libc, log, reader, source, tree
from filesystems.fanotify.asking import SOCKET_NAME, Listener, answer, ask
from filesystems.fanotify.errors import ReaderBusy, WatchEnded
from filesystems.fanotify.source import FanotifySource, without_covered
from shards.changes import ChangeSet, Gap, Position
from tests.support.change_histories import missed, running_reader, snapshot

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="fanotify marks filesystems for root")

NOBODY = 65534


@dataclass
class Watched:
    """A root that is watched, and a folder beside it."""

    root: Path
    outside: Path
    folder: Path
    source: FanotifySource

    def since(self, before, state) -> ChangeSet:
        """Return the changes since a position; nothing that differs may be missed."""
        changes = self.source.changes(before)
        assert missed(state, snapshot(bytes(self.root)), changes) == []
        return changes

    def now(self):
        return self.source.position(), snapshot(bytes(self.root))


@pytest.fixture
def places(tmp_path):
    for name in ("root", "outside"):
        (tmp_path / name).mkdir()
    return tmp_path


@pytest.fixture
def watched(places):
    folder = places / "changes"
    with running_reader("set", bytes(places / "root"), folder) as it:
        yield Watched(places / "root", places / "outside", folder, it)


def test_nothing_done_is_nothing_to_look_at(watched):
    (watched.root / "old").write_text("old")
    before = watched.source.position()
    assert watched.source.changes(before).names == []


def test_names_and_their_directories_are_named(watched):
    for name in ("changed", "made", "removed"):
        (watched.root / name).mkdir()
        (watched.root / name / "x").touch()
    (watched.root / "made" / "x").unlink()
    before, state = watched.now()
    (watched.root / "changed" / "x").write_text("new")
    (watched.root / "made" / "x").touch()
    (watched.root / "removed" / "x").unlink()
    changes = watched.since(before, state)
    assert changes.names == [b"changed/x", b"made", b"made/x", b"removed", b"removed/x"]
    assert changes.subtrees == []


def test_what_is_outside_is_not_named(watched):
    before = watched.source.position()
    (watched.outside / "tree").mkdir()
    (watched.outside / "tree" / "x").write_text("outside")
    changes = watched.source.changes(before)
    assert (changes.names, changes.subtrees) == ([], [])
    with log.LogReader(watched.folder, "set", before.session, 0) as reading:
        handle = libc.handle_at(-100, bytes(watched.outside / "tree"))
        assert handle not in {look.handle for look in reading.places(0)}


def test_what_the_reader_writes_itself_is_not_named(places):
    with running_reader("set", bytes(places), places / "changes") as it:
        before = it.position()
        (places / "x").touch()
        it.position()
        assert it.changes(before).names == [b"", b"x"]


def test_a_directory_that_is_moved_twice_and_removed_leaves_its_first_path(watched):
    (watched.root / "a" / "b").mkdir(parents=True)
    (watched.root / "a" / "b" / "x").write_text("1")
    before, state = watched.now()
    (watched.root / "a").rename(watched.root / "c")
    (watched.root / "c" / "b").rename(watched.root / "d")
    (watched.root / "d" / "x").write_text("2")
    shutil.rmtree(watched.root / "d")
    shutil.rmtree(watched.root / "c")
    changes = watched.since(before, state)
    assert set(changes.subtrees) == {b"a", b"c", b"d"}


def test_directories_that_swap_places_are_looked_at_whole(watched):
    for name in ("a", "b"):
        (watched.root / name / "deep").mkdir(parents=True)
        (watched.root / name / "deep" / "x").write_text(name)
    before, state = watched.now()
    at = -100
    call = ctypes.CDLL(None).renameat2
    assert call(at, bytes(watched.root / "a"), at, bytes(watched.root / "b"), 2) == 0
    (watched.root / "a" / "deep" / "x").write_text("changed")
    assert watched.since(before, state).subtrees == [b"a", b"b"]


def test_a_directory_that_was_outside_for_a_while_is_looked_at_whole(watched):
    (watched.root / "a").mkdir()
    (watched.root / "a" / "x").write_text("1")
    before, state = watched.now()
    (watched.root / "a").rename(watched.outside / "a")
    watched.source.position()
    (watched.outside / "a" / "x").write_text("2")
    watched.source.position()
    (watched.outside / "a").rename(watched.root / "a")
    assert watched.since(before, state).subtrees == [b"a"]


def test_what_is_moved_in_from_outside_is_looked_at_whole(watched):
    (watched.outside / "a" / "b").mkdir(parents=True)
    (watched.outside / "a" / "b" / "x").write_text("1")
    before, state = watched.now()
    (watched.outside / "a").rename(watched.root / "a")
    assert watched.since(before, state).subtrees == [b"a"]


def test_a_name_that_becomes_something_else_is_looked_at_as_both(watched):
    (watched.root / "n").mkdir()
    (watched.root / "n" / "x").write_text("1")
    before, state = watched.now()
    shutil.rmtree(watched.root / "n")
    (watched.root / "n").write_text("a file")
    assert watched.since(before, state).subtrees == [b"n"]


def test_a_write_through_a_name_outside_is_found_by_its_inode(watched):
    (watched.root / "inside").write_text("1")
    os.link(watched.root / "inside", watched.outside / "outside")
    before, state = watched.now()
    (watched.outside / "outside").write_text("22")
    changes = watched.since(before, state)
    assert changes.names == []
    assert (watched.root / "inside").stat().st_ino in changes.inodes


def test_a_write_through_a_reused_name_outside_is_found_by_its_inode(watched):
    (watched.root / "inside").write_text("1")
    os.link(watched.root / "inside", watched.outside / "outside")
    with open(watched.outside / "outside", "a") as stream:
        (watched.outside / "outside").unlink()
        (watched.outside / "outside").touch()
        before, state = watched.now()
        stream.write("2")
    watched.since(before, state)


def test_a_renamed_name_outside_moves_the_ctime_of_the_one_inside(watched):
    (watched.root / "inside").write_text("1")
    os.link(watched.root / "inside", watched.outside / "outside")
    before, state = watched.now()
    os.rename(watched.outside / "outside", watched.outside / "other")
    watched.since(before, state)


def test_a_file_that_never_had_the_name_of_its_events_is_found(watched):
    descriptor = os.open(watched.root, os.O_TMPFILE | os.O_RDWR, 0o600)
    source_name = f"/proc/self/fd/{descriptor}".encode()
    linkat = ctypes.CDLL(None).linkat
    assert linkat(-100, source_name, -100, bytes(watched.root / "linked"), 0x400) == 0
    before, state = watched.now()
    os.write(descriptor, b"later")
    os.close(descriptor)
    watched.since(before, state)


def test_a_mapping_that_stays_open_counts_as_changed(watched):
    path = watched.root / "mapped"
    path.write_bytes(bytes(4096))
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    size = ctypes.c_size_t(4096)
    with open(path, "r+b") as stream:  # Python's own mmap would keep it open
        both = mmap.PROT_READ | mmap.PROT_WRITE
        mapping = library.mmap(None, size, both, mmap.MAP_SHARED, stream.fileno(), ctypes.c_long(0))
        assert mapping != ctypes.c_void_p(-1).value, os.strerror(ctypes.get_errno())
    try:
        before, state = watched.now()
        ctypes.memmove(mapping, b"new", 3)
        changes = watched.since(before, state)
        assert changes.names == []
        assert path.stat().st_ino in changes.inodes
    finally:
        library.munmap(ctypes.c_void_p(mapping), size)


def test_native_aio_to_a_file_that_stays_open_counts_as_changed(watched):
    class Control(ctypes.Structure):
        _fields_ = (
            ("data", ctypes.c_uint64), ("key", ctypes.c_uint32), ("flags", ctypes.c_int32),
            ("opcode", ctypes.c_uint16), ("priority", ctypes.c_int16), ("fd", ctypes.c_uint32),
            ("buffer", ctypes.c_uint64), ("size", ctypes.c_uint64), ("offset", ctypes.c_int64),
            ("reserved", ctypes.c_uint64), ("more", ctypes.c_uint32), ("event", ctypes.c_uint32),
        )  # fmt: skip

    if os.uname().machine != "x86_64":
        pytest.skip("the numbers of io_setup, io_submit, io_getevents are those of x86_64")
    path = watched.root / "database"
    path.write_bytes(bytes(4096))
    before, state = watched.now()
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    with open(path, "r+b") as stream:
        context = ctypes.c_ulong(0)
        assert syscall(206, 1, ctypes.byref(context)) == 0, os.strerror(ctypes.get_errno())
        data = ctypes.create_string_buffer(b"written")
        control = Control(
            opcode=1, fd=stream.fileno(), buffer=ctypes.addressof(data), size=len(data)
        )
        controls = (ctypes.c_void_p * 1)(ctypes.addressof(control))
        assert syscall(209, context, ctypes.c_long(1), controls) == 1
        done = ctypes.create_string_buffer(32)
        assert syscall(208, context, ctypes.c_long(1), ctypes.c_long(1), done, None) == 1
        syscall(207, context)
        assert path.read_bytes().startswith(b"written")
        watched.since(before, state)


def test_names_that_are_no_text_and_look_deleted_are_exact(watched):
    folder = os.path.join(bytes(watched.root), b"\xff\n (deleted)")
    os.mkdir(folder)
    before, state = watched.now()
    Path(os.fsdecode(folder), "x").touch()
    changes = watched.since(before, state)
    assert changes.names == [b"\xff\n (deleted)", b"\xff\n (deleted)/x"]


def test_a_path_longer_than_a_page_is_found(watched):
    names = [b"%03d" % level + b"d" * 200 for level in range(30)]
    current = os.open(watched.root, os.O_RDONLY)
    for name in names:
        os.mkdir(name, dir_fd=current)
        below = os.open(name, os.O_RDONLY, dir_fd=current)
        os.close(current)
        current = below
    before = watched.source.position()
    os.close(os.open("x", os.O_WRONLY | os.O_CREAT, dir_fd=current))
    os.close(current)
    deep = b"/".join(names)
    assert watched.source.changes(before).names == [deep, deep + b"/x"]


def test_looking_up_asks_once_for_a_directory_and_not_for_its_names(watched, monkeypatch):
    for folder in range(20):
        (watched.root / f"d{folder}").mkdir()
        for name in range(10):
            (watched.root / f"d{folder}" / f"f{name}").touch()
    before = watched.source.position()
    for path in watched.root.glob("*/*"):
        path.write_text("changed")
    calls = []
    here = threading.get_ident()  # the reader is another thread
    for module, name in ((tree, "open_handle"), (tree, "handle_at")):
        real = getattr(module, name)

        def count(*given, real=real, name=name):
            if threading.get_ident() == here:
                calls.append((name, given[1]))
            return real(*given)

        monkeypatch.setattr(module, name, count)
    changes = watched.source.changes(before)
    assert len(changes.names) == 200
    names = [what for call, what in calls if call == "handle_at"]
    assert set(names) == {b"."}  # the root's identity
    # Others may be inodes that had their link count changed elsewhere on this filesystem.
    folders = {libc.handle_at(-100, bytes(path)) for path in watched.root.iterdir()}
    opened = [what for call, what in calls if call == "open_handle" and what in folders]
    assert len(opened) == 20


# Gaps.


def test_without_a_reader_there_is_a_gap(places):
    it = FanotifySource("set", bytes(places / "root"), places / "changes")
    with pytest.raises(Gap, match="no change reader is running"):
        it.position()


def test_positions_of_others_are_gaps(watched):
    here = watched.source.position()
    with pytest.raises(Gap, match="restarted since"):
        watched.source.changes(replace(here, session="another"))
    with pytest.raises(Gap, match="but the change reader is at"):
        watched.source.changes(replace(here, sequence=here.sequence + 1_000_000))
    with pytest.raises(Gap, match="but the change reader is at"):
        watched.source.changes(replace(here, sequence=-1))
    with pytest.raises(Gap, match="one of lustre"):
        watched.source.changes(Position("lustre", here.session, here.sequence))


def test_a_restart_is_a_gap(places):
    root, folder = bytes(places / "root"), places / "changes"
    with running_reader("set", root, folder) as it:
        before = it.position()
    with pytest.raises(Gap, match="no change reader is running"):
        it.changes(before)
    with running_reader("set", root, folder) as it, pytest.raises(Gap, match="restarted since"):
        it.changes(before)


def test_a_killed_reader_leaves_a_gap_and_its_successor_starts(places):
    root, folder = places / "root", places / "changes"
    program = (
        "import os, sys; from pathlib import Path; from filesystems.fanotify.reader import Reader\n"
        "reader = Reader('set', os.fsencode(sys.argv[1]), Path(sys.argv[2]))\n"
        "print('ready', flush=True); reader.run(0)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, root, folder],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=Path(libc.__file__).parents[2],
    ) as process:
        assert process.stdout.readline() == b"ready\n"
        it = FanotifySource("set", bytes(root), folder)
        before = it.position()
        (root / "x").touch()
        process.kill()
    with pytest.raises(Gap, match="no change reader is running"):
        it.changes(before)
    with running_reader("set", bytes(root), folder) as it, pytest.raises(Gap, match="restarted"):
        it.changes(before)


def test_there_is_one_reader_for_a_dataset(watched):
    with pytest.raises(ReaderBusy, match="dataset set is watched already"):
        reader.Reader("set", bytes(watched.root), watched.folder)
    watched.source.position()


def test_an_overflow_is_a_gap_for_what_was_before_it(watched, monkeypatch):
    before = watched.source.position()
    real = os.read
    overflow = [reader.METADATA.pack(24, 3, 0, 24, libc.FAN_Q_OVERFLOW, -1, 0)]
    monkeypatch.setattr(
        os, "read", lambda *given: (overflow.pop() if overflow else b"") + real(*given)
    )
    (watched.root / "x").touch()
    after = watched.source.position()
    monkeypatch.undo()
    with pytest.raises(Gap, match="no memory for its queue"):
        watched.source.changes(before)
    (watched.root / "y").touch()
    assert watched.source.changes(after).names == [b"", b"y"]


def test_forgotten_positions_are_gaps(watched):
    before = watched.source.position()
    (watched.root / "x").touch()
    middle = watched.source.position()
    (watched.root / "y").touch()
    watched.source.forget(replace(middle, session="another"))
    assert b"x" in watched.source.changes(before).names
    watched.source.forget(middle)
    with pytest.raises(Gap, match="pruned"):
        watched.source.changes(before)
    assert watched.source.changes(middle).names == [b"", b"y"]
    watched.source.forget(before)  # older: nothing to do
    assert watched.source.changes(middle).names == [b"", b"y"]


def test_more_changes_than_a_log_takes_are_a_gap(watched, monkeypatch):
    before = watched.source.position()
    sizes = [log.LOG_BYTES_MAX + 1]
    monkeypatch.setattr(log.ChangeLog, "_size_bytes", lambda self: sizes.pop() if sizes else 0)
    (watched.root / "x").touch()
    after = watched.source.position()
    with pytest.raises(Gap, match="more changes than the change log takes"):
        watched.source.changes(before)
    assert watched.source.changes(after).names == []


def test_more_changes_than_an_incremental_is_worth_are_a_gap(watched, monkeypatch):
    before = watched.source.position()
    for name in range(20):
        (watched.root / str(name)).touch()
    monkeypatch.setattr(source, "CHANGES_MAX", 10)
    with pytest.raises(Gap, match="more than 10 names changed"):
        watched.source.changes(before)


def test_a_moved_ancestor_is_a_gap_until_it_is_back(places):
    above = places / "above"
    (above / "root").mkdir(parents=True)
    root = bytes(above / "root")
    with running_reader("set", root, places / "changes") as it:
        before = it.position()
        above.rename(places / "elsewhere")
        with pytest.raises(Gap, match="does not exist"):
            it.position()
        (places / "elsewhere" / "root" / "x").touch()
        (places / "elsewhere").rename(above)
        assert it.changes(before).names == [b"", b"x"]


def test_a_replaced_root_is_a_gap_and_ends_the_reader(places):
    root = places / "root"
    with (
        pytest.raises(WatchEnded, match="another directory has taken its place"),
        running_reader("set", bytes(root), places / "changes") as it,
    ):
        replace_root(root, it)


def replace_root(root, it):
    before = it.position()
    root.rename(root.with_name("old"))
    root.mkdir()
    with pytest.raises(Gap, match="another directory has taken its place"):
        it.changes(before)


def test_a_reader_of_another_root_or_dataset_is_a_gap(watched):
    elsewhere = FanotifySource("set", bytes(watched.outside), watched.folder)
    with pytest.raises(Gap, match="which is another directory than"):
        elsewhere.position()
    with pytest.raises(Gap, match="is one of dataset set"):
        FanotifySource("other", bytes(watched.root), watched.folder).position()


def changed_log(watched, change):
    """Change the file on disk as if the disk had; the reader's own is another file then."""
    path = watched.folder / log.LOG_NAME
    connection = sqlite3.connect(path)
    # Not read as a file: closing it would drop the locks that SQLite has on it in this process.
    data = bytearray(connection.serialize())
    connection.close()
    change(data)
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    path.write_bytes(data)


def replace_first(data, old, new):
    position = data.index(old)
    data[position : position + len(old)] = new


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda data: data.clear(), "cannot be read"),
        (lambda data: data.__delitem__(slice(len(data) // 2, None)), "cannot be read"),
        (lambda data: data.__setitem__(slice(0, 100), bytes(100)), "cannot be read"),
        (lambda data: replace_first(data, b"a-certain-name", b"a-Certain-name"), "is damaged"),
    ],
)
def test_a_damaged_log_is_a_gap(watched, change, told):
    before = watched.source.position()
    (watched.root / "a-certain-name").touch()
    watched.source.position()
    changed_log(watched, change)
    # Its own file has no name any more: what it writes there is in vain, and it is told so.
    with (
        pytest.raises(Gap, match=told),
        log.LogReader(watched.folder, "set", before.session, 0) as reading,
    ):
        list(reading.places(0))
    with pytest.raises(Gap):
        watched.source.changes(before)


def test_an_old_copy_of_the_log_is_a_gap(watched):
    before = watched.source.position()
    (watched.root / "x").touch()
    watched.source.position()
    changed_log(watched, lambda data: None)
    (watched.root / "y").touch()
    with pytest.raises(Gap, match="is not what the change reader writes"):
        watched.source.changes(before)


def test_a_reader_that_does_not_answer_is_a_gap(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(tmp_path / SOCKET_NAME))
        listening.listen()
        with pytest.raises(Gap, match="does not answer"):
            ask(tmp_path, {"ask": "position"}, 0.05)


def test_nonsense_is_answered_and_does_not_end_the_reader(watched):
    for question in ({}, {"ask": "forget", "session": 1, "sequence": "x"}, {"ask": ["position"]}):
        with pytest.raises(Gap, match="does not understand"):
            ask(watched.folder, question)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
        peer.connect(str(watched.folder / SOCKET_NAME))
        peer.send(b"\xff not JSON")
        assert peer.recv(100) == b""
    watched.source.position()


def asked_as(uid, path):
    """Ask as another user, in a child; return its exit code: 0 if it was refused."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setuid(uid)
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as peer:
                peer.connect(path)
                peer.send(b'{"ask": "status"}')
                code = 0 if b"may not ask" in peer.recv(1000) else 2
        finally:
            os._exit(code)
    return child


@pytest.mark.parametrize(("uid", "is_answered"), [(NOBODY, False), (0, True)])
def test_other_users_get_no_answer(uid, is_answered):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        listener = Listener(Path(folder))
        path = Path(folder, SOCKET_NAME)
        assert path.stat().st_mode & 0o777 == 0o600
        path.chmod(0o666)  # as if somebody had opened the way to it
        Path(folder).chmod(0o755)
        child = asked_as(uid, str(path))
        try:
            accepted = listener.accept()
            assert (accepted is not None) == is_answered
            if accepted is not None:
                answer(accepted[0], {})
        finally:
            _, status = os.waitpid(child, 0)
            listener.close()
        assert os.waitstatus_to_exitcode(status) == (2 if is_answered else 0)


def test_covered_names_are_left_out():
    names = [b"a", b"a/b", b"a-b", b"ab", b"c/d/e", b"c/d", b"", b"c\xff"]
    assert without_covered(names, [b"a", b"a/b/c", b"c/d"]) == (
        [b"", b"a-b", b"ab", b"c\xff"],
        [b"a", b"c/d"],
    )
    assert without_covered(names, [b"", b"a"]) == ([], [b""])
