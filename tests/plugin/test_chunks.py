"""How far ahead a large file is read.

Covers: two pieces while nobody waits, more with each wait for the head, fewer again while all are
read; the same buffers again and again; every byte in order whatever the window does.
Does not cover: stripes (test_stripes.py), which thread reads (test_plugin_opening.py), sparse files
(test_plugin_backup.py).
"""

import ctypes
import os
import random
import subprocess

import pytest

from tests.plugin.test_frames import CFLAGS, PLUGIN

CHUNK = 1 << 20
STRUCT_BYTES = 1 << 14  # larger than struct fb_chunks and what belongs to pthreads
LIMIT = 8


class Chunk(ctypes.Structure):
    """struct fb_chunk."""

    _fields_ = (
        ("offset", ctypes.c_uint64),
        ("want", ctypes.c_uint32),
        ("got", ctypes.c_uint32),
        ("error", ctypes.c_int),
        ("ready", ctypes.c_bool),
        ("data", ctypes.c_void_p),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    path = tmp_path_factory.mktemp("chunks") / "chunks.so"
    sources = [str(source) for source in PLUGIN.glob("*.c")]
    subprocess.run(["cc", *CFLAGS, "-shared", *sources, "-o", str(path)], check=True)
    library = ctypes.CDLL(str(path))
    library.fb_chunks_head.restype = ctypes.POINTER(Chunk)
    for name in ("fb_chunks_has_work", "fb_chunks_want_more"):
        getattr(library, name).restype = ctypes.c_bool
    return library


class Reading:
    """One file being read, by hand, in one thread."""

    def __init__(self, library, path):
        self.library = library
        self.chunks, self.lock, self.work = (
            ctypes.create_string_buffer(STRUCT_BYTES) for _ in range(3)
        )
        library.pthread_mutex_init(self.lock, None)
        library.pthread_cond_init(self.work, None)
        library.fb_chunks_init(self.chunks, LIMIT)
        self.descriptor = os.open(path, os.O_RDONLY)
        size = ctypes.c_uint64(path.stat().st_size)
        stripes = ctypes.create_string_buffer(STRUCT_BYTES)  # nothing is known
        library.fb_chunks_start(self.chunks, self.descriptor, size, False, stripes)
        library.pthread_mutex_lock(self.lock)

    def fill(self):
        """Read as many pieces as may be; return their number."""
        count = 0
        while self.library.fb_chunks_has_work(self.chunks):
            self.library.fb_chunks_work(self.chunks, self.lock, self.work)
            count += 1
        return count

    def take(self):
        """Take the next piece; return its offset, its content and where that was."""
        at_end = ctypes.c_bool()
        head = self.library.fb_chunks_head(self.chunks, ctypes.byref(at_end))
        if not head:
            assert at_end.value
            return None
        found = head[0]
        data = ctypes.string_at(found.data, found.got)
        address, offset = found.data, found.offset
        self.library.fb_chunks_pop(self.chunks)
        return offset, data, address

    def wait(self):
        return self.library.fb_chunks_want_more(self.chunks)

    def close(self):
        self.library.fb_chunks_stop(self.chunks, self.lock)
        self.library.pthread_mutex_unlock(self.lock)
        self.library.fb_chunks_free(self.chunks)
        os.close(self.descriptor)


@pytest.fixture
def reading(library, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(random.Random(5).randbytes(40 * CHUNK + 77))
    reading = Reading(library, path)
    reading.content = path.read_bytes()
    yield reading
    reading.close()


def test_two_pieces_are_ahead_while_nobody_waits(reading):
    assert reading.fill() == 2
    for _ in range(5):
        reading.take()
        assert reading.fill() == 1


def test_each_wait_lets_more_be_ahead_up_to_the_limit(reading):
    ahead = reading.fill()
    seen = [ahead]
    while reading.wait():
        ahead += reading.fill()
        seen.append(ahead)
    assert seen[:2] == [2, 4]
    assert seen == sorted(set(seen))
    assert seen[-1] == LIMIT


def test_a_wait_changes_nothing_while_there_is_room(reading):
    reading.fill()
    reading.take()
    assert not reading.wait()
    assert reading.fill() == 1


def test_the_window_shrinks_to_two_while_all_is_read(reading):
    reading.fill()
    while reading.wait():
        reading.fill()
    counts = []
    for _ in range(20):
        reading.take()
        counts.append(reading.fill())
    assert 0 in counts  # nothing was read: there is room for one less
    while (ahead := reading.take()) is not None and reading.fill() == 0:
        pass
    assert ahead is not None
    reading.take()
    assert reading.fill() == 1


def test_every_byte_comes_in_order_from_few_buffers(reading):
    chance, at, addresses = random.Random(7), 0, set()
    while True:
        reading.fill()
        if chance.random() < 0.3:
            reading.wait()
        if (found := reading.take()) is None:
            break
        offset, data, address = found
        assert offset == at
        assert data == reading.content[at : at + len(data)]
        at += len(data)
        addresses.add(address)
    assert at == len(reading.content)
    assert len(addresses) <= LIMIT
