"""The latency filesystem of the benchmarks shows what it promises, when it promises it."""

import os
import stat
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from benchmarks import latency_mount
from benchmarks.latency_mount import LatencyMount, Shape, content, flat

pytestmark = pytest.mark.skipif(
    latency_mount.why_not() is not None, reason=str(latency_mount.why_not())
)
CACHED_S = 60.0
DELAY_US = 10_000  # long, so that a busy machine does not blur what is measured


def looked_at(folder, names):
    """Ask for the attributes of each name; return the shortest time that one took, in seconds."""
    return min(seconds(lambda name=name: os.lstat(folder / name)) for name in names)


def seconds(action):
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def seconds_in_parallel(folder, names, threads):
    """Look at all names with so many threads; no operation may take less than its delay."""
    with ThreadPoolExecutor(threads) as pool:
        started = time.perf_counter()
        parts = [pool.submit(looked_at, folder, names[k::threads]) for k in range(threads)]
        assert min(part.result() for part in parts) >= DELAY_US / 1e6
        return time.perf_counter() - started


@pytest.mark.parametrize(
    "shape",
    [
        Shape(fanout=3, depth=3, files=7, size_bytes=5000),
        Shape(targets=4, fanout=2, depth=2, files=3),
        Shape(targets=1, files=1),
        flat(3000),
        Shape(),
    ],
)
def test_every_inode_is_there_once(shape):
    with LatencyMount(shape, delay_us=0, timeout_s=CACHED_S) as mount:
        root = os.lstat(mount.path)
        seen = {root.st_ino: mount.path}
        for folder, directories, files in os.walk(mount.path):
            listed = {entry.name: entry.inode() for entry in os.scandir(folder)}
            for name in directories + files:
                path = Path(folder, name)
                found = os.lstat(path)
                assert found.st_ino not in seen, (path, seen[found.st_ino])
                seen[found.st_ino] = path
                assert found.st_nlink == 1
                assert found.st_dev == root.st_dev
                assert stat.S_ISDIR(found.st_mode) == (name in directories)
                assert name in directories or found.st_size == shape.size_bytes
                assert found.st_ino == listed[name]
        assert len(seen) == shape.inodes
        assert os.statvfs(mount.path).f_files == shape.inodes


def test_a_name_is_there_under_no_other_spelling():
    with LatencyMount(Shape(fanout=2, depth=1, files=3), delay_us=0) as mount:
        assert (mount.path / "f0000002").exists()
        for name in ("f2", "f0000003", "f00000002", "f+000002", "d0000002", "x0000001", "f", "t0"):
            assert not (mount.path / name).exists(), name


def test_files_have_the_content_that_is_computed_for_them():
    size = 9_000_001
    with LatencyMount(flat(2, size), delay_us=0) as mount:
        for name in ("f0000000", "f0000001"):
            with open(mount.path / name, "rb", buffering=0) as file:
                inode = os.fstat(file.fileno()).st_ino
                for offset, length in ((0, size + 1), (4_194_300, 70_000), (size - 3, 10)):
                    file.seek(offset)
                    expected = content(inode, offset, min(length, size - offset))
                    assert file.read(length) == expected
            assert (mount.path / name).read_bytes() == content(inode, 0, size)
        first, second = (os.lstat(mount.path / f"f000000{k}").st_ino for k in range(2))
        assert content(first, 0, 4096) != content(second, 0, 4096)
        assert content(first, 0, 4096) != content(first, 4 << 20, 4096)


def test_it_cannot_be_written():
    with LatencyMount(flat(1), delay_us=0) as mount:
        with pytest.raises(OSError, match="Read-only"):
            (mount.path / "new").touch()
        assert os.listxattr(mount.path / "f0000000") == []


def test_an_operation_takes_its_delay_and_never_less():
    names = [f"f{number:07d}" for number in range(20)]
    with LatencyMount(flat(20), delay_us=DELAY_US, timeout_s=CACHED_S) as mount:
        assert looked_at(mount.path, names) >= DELAY_US / 1e6
        asked = mount.operations()
        assert asked.by_kind["lookup"] == len(names)
        looked_at(mount.path, names)
        assert mount.operations().by_kind == asked.by_kind  # cached: not asked
        mount.set_delay(10 * DELAY_US)
        assert seconds(lambda: os.listxattr(mount.path / "f0000000")) >= 10 * DELAY_US / 1e6


def test_without_a_timeout_everything_is_asked_again():
    with LatencyMount(flat(5), delay_us=0) as mount:
        before = mount.operations().by_kind["lookup"]
        for _ in range(3):
            looked_at(mount.path, ["f0000001"])
        assert mount.operations().by_kind["lookup"] == before + 3


def test_lookups_in_one_directory_run_in_parallel():
    names = [f"f{number:07d}" for number in range(320)]
    with LatencyMount(flat(320), delay_us=DELAY_US, timeout_s=CACHED_S) as mount:
        assert seconds_in_parallel(mount.path, names, 32) < 320 * DELAY_US / 1e6 / 5
        assert mount.operations().in_flight_high > 16


def test_it_is_the_flag_that_lets_lookups_run_in_parallel():
    names = [f"f{number:07d}" for number in range(64)]
    flags = ["-DPARALLEL_DIROPS=0"]
    with LatencyMount(flat(64), delay_us=DELAY_US, timeout_s=CACHED_S, flags=flags) as mount:
        os.lstat(mount.path)  # or each thread asks for it
        assert seconds_in_parallel(mount.path, names, 32) >= 64 * DELAY_US / 1e6
        assert mount.operations().in_flight_high == 1


def test_a_target_serves_so_many_at_once_and_no_other_target_waits_for_it():
    shape = Shape(targets=2, files=64)
    with LatencyMount(shape, delay_us=DELAY_US, timeout_s=CACHED_S, concurrency=4) as mount:
        looked_at(mount.path, ["t0", "t1"])
        names = [f"t{number % 2}/f{number // 2:07d}" for number in range(128)]
        least_s = 64 / 4 * DELAY_US / 1e6
        assert least_s <= seconds_in_parallel(mount.path, names, 64) < 2 * least_s
        assert mount.operations().by_target[:2] == [64, 64]


def test_an_overloaded_target_gets_slower():
    names = [f"f{number:07d}" for number in range(128)]
    at_rest_s = 128 / 8 * DELAY_US / 1e6
    options = {"timeout_s": CACHED_S, "concurrency": 8, "overload_percent": 50}
    with LatencyMount(flat(128), delay_us=DELAY_US, **options) as mount:
        assert seconds_in_parallel(mount.path, names, 8) < 2 * at_rest_s
    with LatencyMount(flat(128), delay_us=DELAY_US, **options) as mount:
        assert seconds_in_parallel(mount.path, names, 64) > 4 * at_rest_s


def test_reads_take_their_share_of_a_delay_per_mib_and_run_in_parallel():
    with LatencyMount(flat(1, 8 << 20), delay_us=0, read_mib_us=100_000) as mount:
        file = os.open(mount.path / "f0000000", os.O_RDONLY)
        try:
            assert seconds(lambda: os.pread(file, 1 << 20, 0)) >= 0.100
            assert 0.025 <= seconds(lambda: os.pread(file, 1 << 18, 1 << 20)) < 0.100
            with ThreadPoolExecutor(8) as pool:
                started = time.perf_counter()
                read = pool.map(lambda k: len(os.pread(file, 1 << 20, k << 20)), range(8))
                assert list(read) == [1 << 20] * 8
                assert time.perf_counter() - started < 0.400
            assert mount.operations().bytes_read == (9 << 20) + (1 << 18)
        finally:
            os.close(file)


def test_ten_million_inodes_take_no_memory_of_the_server():
    shape = Shape(fanout=100, depth=2, files=1000)
    assert shape.inodes > 10_000_000
    with LatencyMount(shape, delay_us=0) as mount:
        last = mount.path / "d0000099" / "d0000099" / "f0000999"
        assert os.lstat(last).st_ino == shape.inodes
        assert len(os.listdir(last.parent)) == 1000
        assert mount.operations().peak_rss_bytes < 16 << 20


def test_it_is_unmounted_when_its_owner_is_killed(tmp_path):
    program = (
        "import sys, time; from benchmarks.latency_mount import LatencyMount, flat\n"
        "with LatencyMount(flat(1)) as mount:\n"
        "    print(mount.path, flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    path = Path(owner.stdout.readline().strip())
    assert path.is_mount()
    owner.kill()
    owner.communicate()
    deadline = time.monotonic() + 10
    while path.is_mount():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    path.rmdir()
