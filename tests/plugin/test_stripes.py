"""Large files are read along their stripes.

Covers: where pieces end and which objects are read at a time, by a recording of the preads, for
layouts of Lustre and CephFS, absurd ones among them; the same through the whole plugin.
Does not cover: how far ahead a file is read (test_chunks.py), reading layouts otherwise
(test_layout_formats.py).
"""

import ctypes
import os
import subprocess
import threading

import pytest

from tests.plugin.backup_support import back_up, check_content, entry_of, statuses
from tests.plugin.layout_examples import SELF_EXTENDING
from tests.plugin.layout_support import (
    ANY,
    EOF,
    INIT,
    MDT,
    MIB,
    OVERSTRIPED,
    RAID0,
    STALE,
    Component,
    composite,
    saved,
)
from tests.plugin.restore_support import HERE
from tests.plugin.test_frames import CFLAGS, PLUGIN
from tests.support.stream_bridge import SAVED, Limits

SOURCES = (
    *("chunks.c", "stripes.c", "prefetch.c", "beneath.c", "blob.c", "xxh3.c"),
    *("layout.c", "layout_ceph.c", "layout_lustre.c", "lustre_file.c"),
)
KIB = 1 << 10
UNIT = 64 * KIB
STRUCT_BYTES = 1 << 14
LIMIT = 16
SIZE = 40 * MIB + 77
PLAIN = [(offset, min(MIB, SIZE - offset)) for offset in range(0, SIZE, MIB)]


class Record(ctypes.Structure):
    """struct pread_record."""

    _fields_ = (("offset", ctypes.c_uint64), ("size", ctypes.c_uint64))


class Layout(ctypes.Structure):
    """struct fb_layout."""

    _fields_ = (("kind", ctypes.c_int), ("data", ctypes.c_char_p), ("size", ctypes.c_size_t))


CEPH = 1


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("stripes") / "stripes.so"
    sources = [*(str(PLUGIN / name) for name in SOURCES), str(HERE / "harness_preads.c")]
    command = ["cc", *CFLAGS, "-shared", "-I", str(PLUGIN), "-Wl,--wrap=pread64", *sources]
    subprocess.run([*command, "-o", str(path)], check=True)
    library = ctypes.CDLL(str(path))
    library.fb_chunks_head.restype = ctypes.c_void_p
    for name in ("fb_chunks_has_work", "fb_chunks_want_more"):
        getattr(library, name).restype = ctypes.c_bool
    return library


def stripes_of(library, layout):
    """Return struct fb_stripes of a lustre.lov, or of a text of CephFS."""
    stripes = ctypes.create_string_buffer(STRUCT_BYTES)
    if layout.startswith(b"stripe_unit"):
        blob = ctypes.create_string_buffer(STRUCT_BYTES)
        one = Layout(CEPH, layout, len(layout))
        library.fb_layout_stripes(ctypes.byref(one), blob, stripes)
    else:
        library.fb_lustre_stripes(layout, ctypes.c_size_t(len(layout)), stripes)
    return stripes


class Reading:
    """One file being read by as many threads as there are calls of work()."""

    def __init__(self, library, path, layout):
        self.library = library
        self.chunks, self.lock, self.cond = (
            ctypes.create_string_buffer(STRUCT_BYTES) for _ in range(3)
        )
        library.pthread_mutex_init(self.lock, None)
        library.pthread_cond_init(self.cond, None)
        library.fb_chunks_init(self.chunks, LIMIT)
        self.descriptor = os.open(path, os.O_RDONLY)
        stripes = stripes_of(library, layout)
        size = ctypes.c_uint64(path.stat().st_size)
        library.fb_chunks_start(self.chunks, self.descriptor, size, False, stripes)

    def fill(self):
        while self.library.fb_chunks_has_work(self.chunks):
            self.work()

    def work(self):
        self.library.pthread_mutex_lock(self.lock)
        self.library.fb_chunks_work(self.chunks, self.lock, self.cond)
        self.library.pthread_mutex_unlock(self.lock)

    def take(self):
        """Give back the next piece; return whether there was one."""
        at_end = ctypes.c_bool()
        if not self.library.fb_chunks_head(self.chunks, ctypes.byref(at_end)):
            assert at_end.value
            return False
        self.library.fb_chunks_pop(self.chunks)
        return True

    def widen(self):
        """Let as many pieces be in memory as there may be at all; nothing is left in it."""
        self.fill()
        while self.library.fb_chunks_want_more(self.chunks):
            self.fill()
        for _ in range(LIMIT):
            assert self.take()

    def close(self):
        self.library.pthread_mutex_lock(self.lock)
        self.library.fb_chunks_stop(self.chunks, self.lock)
        self.library.pthread_mutex_unlock(self.lock)
        self.library.fb_chunks_free(self.chunks)
        os.close(self.descriptor)


@pytest.fixture
def reading(library, tmp_path):
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(SIZE)
    started = []

    def start(layout):
        started.append(Reading(library, path, layout))
        library.preads_reset(0)
        return started[-1]

    yield start
    for one in started:
        one.close()


def preads(library):
    count = ctypes.c_uint.in_dll(library, "preads_count").value
    made = (Record * count).in_dll(library, "preads_made")
    return [(one.offset, one.size) for one in made]


def read_all(library, reading):
    reading.fill()
    while reading.take():
        reading.fill()
    return preads(library)


def striped(*components):
    """Return a PFL layout of (start, end, stripes, stripe bytes)."""
    parts = [
        Component(start, end, saved(count, size=size), INIT, number)
        for number, (start, end, count, size) in enumerate(components, 1)
    ]
    return composite(*parts)


DOM_FIRST = composite(
    Component(0, 512 * KIB, saved(0, pattern=MDT, size=512 * KIB), INIT, 1),
    Component(512 * KIB, EOF, saved(4, size=3 * MIB), INIT, 2),
)
NOT_WRITTEN = composite(
    Component(0, 2 * MIB, saved(4, size=2 * MIB + UNIT), INIT, 1),
    Component(2 * MIB, EOF, saved(4, size=2 * MIB + UNIT), 0, 2),
)
MIRRORED = composite(
    Component(0, EOF, saved(2, size=3 * UNIT), INIT | STALE, 0x10001),
    Component(0, EOF, saved(2, size=24 * UNIT), INIT, 0x20002),
    Component(0, EOF, saved(2, size=5 * UNIT), INIT, 0x30003),
    mirrors=3,
)
# A layout, and what holds for a file of it: (start, end, bytes of a stripe).
STRIPED = {
    "64 KiB": (saved(4, size=UNIT), [(0, EOF, UNIT)]),
    "768 KiB": (saved(4, size=768 * KIB), [(0, EOF, 768 * KIB)]),
    "1 MiB": (saved(4), [(0, EOF, MIB)]),
    "1.5 MiB": (saved(4, size=1536 * KIB), [(0, EOF, 1536 * KIB)]),
    "4 MiB": (saved(4, size=4 * MIB), [(0, EOF, 4 * MIB)]),
    "4 GiB": (saved(4, size=2**32 - UNIT), [(0, EOF, 2**32 - UNIT)]),
    "overstriped": (
        saved(9, pattern=RAID0 | OVERSTRIPED, size=1536 * KIB),
        [(0, EOF, 1536 * KIB)],
    ),
    "PFL": (
        striped(
            (0, 512 * KIB, 1, UNIT), (512 * KIB, 9 * MIB, 2, 768 * KIB), (9 * MIB, EOF, 4, 3 * MIB)
        ),
        [(0, 512 * KIB, EOF), (512 * KIB, 9 * MIB, 768 * KIB), (9 * MIB, EOF, 3 * MIB)],
    ),
    "DoM": (DOM_FIRST, [(0, 512 * KIB, EOF), (512 * KIB, EOF, 3 * MIB)]),
    "not written": (NOT_WRITTEN, [(0, 2 * MIB, 2 * MIB + UNIT)]),
    "mirrored": (MIRRORED, [(0, EOF, 24 * UNIT)]),
    "CephFS": (
        b"stripe_unit=786432 stripe_count=3 object_size=3145728 pool=a",
        [(0, EOF, 768 * KIB)],
    ),
}


@pytest.mark.parametrize("name", STRIPED)
def test_pieces_end_where_stripes_and_components_do(library, reading, name):
    layout, ranges = STRIPED[name]
    made = read_all(library, reading(layout))
    at = 0
    for offset, size in made:
        end = offset + size
        assert offset == at
        assert 0 < size <= MIB
        for start, stop, stripe in ranges:
            if not start <= offset < stop:
                continue
            assert end <= stop
            if stripe >= MIB:
                assert offset // stripe == (end - 1) // stripe
            else:
                assert offset % stripe == 0 or offset == start
                assert end % stripe == 0 or end in (stop, SIZE)
        at = end
    assert at == SIZE
    # And no shorter than that asks for.
    assert len(made) <= 2 * len(PLAIN) + len(ranges)


@pytest.mark.parametrize(
    "layout",
    [
        pytest.param(b"", id="none"),
        pytest.param(saved(1, size=1536 * KIB), id="one object"),
        pytest.param(saved(4, size=0), id="no stripe size"),
        pytest.param(saved(4, size=1), id="one byte"),
        pytest.param(saved(4, size=MIB + 1), id="odd"),
        pytest.param(saved(4, size=2**32 - 1), id="all bits"),
        pytest.param(saved(0, size=1536 * KIB), id="no stripes"),
        pytest.param(saved(ANY, size=1536 * KIB, objects=0), id="all OSTs"),
        pytest.param(saved(2001, size=1536 * KIB), id="too many stripes"),
        pytest.param(saved(4, size=1536 * KIB)[:-1], id="cut off"),
        pytest.param(striped((1, 2, 4, UNIT), (2, 3, 4, UNIT)), id="bytes"),
        pytest.param(striped((0, 0, 4, 24 * UNIT)), id="of nothing"),
        pytest.param(b"stripe_unit=0 stripe_count=0 object_size=0", id="zeros of CephFS"),
        pytest.param(SELF_EXTENDING.replace(b"\x10\0\0\0", b"\0\0\0\0"), id="nothing written"),
    ],
)
def test_what_says_nothing_useful_is_read_in_pieces_of_one_mebibyte(library, reading, layout):
    assert read_all(library, reading(layout)) == PLAIN


def test_of_many_components_the_first_are_known(library, reading):
    step = 9 * UNIT
    parts = [(n * step, (n + 1) * step, 2, UNIT) for n in range(200)]
    made = read_all(library, reading(striped(*parts)))
    ends = {offset + size for offset, size in made}
    assert {n * step for n in range(1, 33)} <= ends
    assert 35 * step not in ends
    assert sum(size for _, size in made) == SIZE


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        pytest.param(saved(4, size=4 * MIB), [16, 20, 24, 28], id="Lustre"),
        pytest.param(
            saved(4, pattern=RAID0 | OVERSTRIPED, size=4 * MIB), [16, 20, 24, 28], id="overstriped"
        ),
        pytest.param(saved(2, size=4 * MIB), [16, 17, 20, 21], id="two objects"),
        pytest.param(
            b"stripe_unit=4194304 stripe_count=1 object_size=4194304 pool=a",
            [16, 20, 24, 28],
            id="CephFS",
        ),
        pytest.param(
            b"stripe_unit=1048576 stripe_count=2 object_size=4194304 pool=a",
            [16, 17, 24, 25],
            id="CephFS, striped",
        ),
        pytest.param(
            striped((0, 20 * MIB, 1, MIB), (20 * MIB, EOF, 3, 3 * MIB)),
            [16, 20, 21, 24],
            id="PFL",
        ),
        pytest.param(saved(1, size=4 * MIB), [16, 17, 18, 19], id="one object"),
        pytest.param(b"", [16, 17, 18, 19], id="unknown"),
    ],
)
def test_what_is_read_at_a_time_lies_on_different_objects(library, reading, layout, expected):
    one = reading(layout)
    one.widen()
    library.preads_reset(4)
    threads = [threading.Thread(target=one.work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(offset // MIB for offset, _ in preads(library)) == expected


def test_the_layout_of_a_file_reaches_its_reads(backup_harness, out, root):
    """Through the whole plugin: 1.5 MiB stripes, a hole, and every byte as it is."""
    path = root / "file"
    with path.open("wb") as file:
        file.write(os.urandom(7 * MIB))
        file.truncate(9 * MIB)
        file.seek(10 * MIB)
        file.write(os.urandom(2 * MIB + 5))
    os.setxattr(path, "user.lov12", saved(4, size=1536 * KIB))
    entries = [entry_of(root, "file")]
    (dump,), (stream,) = back_up(
        *(backup_harness, out, root, [entries]),
        limits=Limits(large_file_bytes=MIB),
        lustre=1,
        record=1,
    )
    assert statuses(stream) == [SAVED]
    with path.open("rb") as file:
        check_content(dump.files[0], stream.receipts[0], file.fileno())
    made = [tuple(map(int, line.split())) for line in (out / "preads").read_text().splitlines()]
    ends = {offset + size for _, offset, size in made}
    assert {MIB, 1536 * KIB, 2560 * KIB, 3 * MIB, 4 * MIB} <= ends
    for _, offset, size in made:
        assert offset // (1536 * KIB) == (offset + size - 1) // (1536 * KIB)
