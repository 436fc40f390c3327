"""The kernel's C code under AddressSanitizer, UndefinedBehaviorSanitizer and ThreadSanitizer.

Covers: the sources as they are, compiled with -Werror into a small program (harness.c).
Does not cover: what rows say (tests/conformance).
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from filesystems.kernel.build_kernel import FOLDER, SOURCES
from tests.support.ceph.standin import compile_standin

HERE = Path(__file__).parent
SANITIZERS = {"address": "address,undefined", "thread": "thread"}
RUN_TIMEOUT_S = 120


@pytest.fixture(scope="module", params=SANITIZERS)
def harness(request, tmp_path_factory) -> Path:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    program = tmp_path_factory.mktemp("harness") / request.param
    flags = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    flags += [f"-fsanitize={SANITIZERS[request.param]}", "-fno-sanitize-recover=all"]
    flags += ["-fno-omit-frame-pointer", "-DDESCRIPTOR_WAIT_MS_MAX=300u", f"-I{FOLDER}"]
    flags += ["-DLOOK_NS=UINT64_C(20000)", "-Wl,--wrap=pace_step"]
    sources = [str(FOLDER / name) for name in SOURCES]
    subprocess.run(
        [compiler, *flags, str(HERE / "harness.c"), *sources, "-o", str(program), "-ldl"],
        check=True,
    )
    sanitizer = f"-fsanitize={SANITIZERS[request.param]}"
    compile_standin(program.with_suffix(".so"), sanitizer, "-fno-sanitize-recover=all")
    return program


@pytest.fixture(scope="module")
def tree(tmp_path_factory) -> Path:
    """Wide, deep and flat: 4,700 files, 220 directories, some links."""
    root = tmp_path_factory.mktemp("tree")
    for i in range(60):
        (root / f"wide{i}").mkdir()
        for j in range(20):
            (root / f"wide{i}" / f"file{j}").touch()
    flat = root / "flat"
    flat.mkdir()
    for i in range(3500):
        (flat / f"a-somewhat-longer-name-{i}").touch()
    for i in range(50):
        os.link(flat / f"a-somewhat-longer-name-{i}", root / "wide1" / f"link{i}")
    folder = root
    for _ in range(80):
        folder = folder / "deep"
        folder.mkdir()
        (folder / "sibling").mkdir()
    return root


def totals(tree: Path) -> tuple[int, int, int]:
    inodes = [os.lstat(tree).st_ino]
    for folder, names, files in os.walk(tree):
        inodes += [os.lstat(os.path.join(folder, name)).st_ino for name in names + files]
    return len(inodes), sum(inodes) % (1 << 64), 0


def run(harness: Path, *arguments: object, **variables: object) -> str:
    # ThreadSanitizer of older compilers can't live with much address randomisation.
    command = ["setarch", "-R"] if shutil.which("setarch") else []
    command += [str(harness), *map(str, arguments)]
    environment = os.environ | {"TSAN_OPTIONS": "halt_on_error=1", "ASAN_OPTIONS": "detect_leaks=1"}
    environment |= {name: str(value) for name, value in variables.items()}
    result = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=RUN_TIMEOUT_S
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    return result.stdout


@pytest.mark.parametrize(
    ("threads", "budget_rows", "batch_rows", "descriptors_max"),
    [
        (1, 0, 65536, 0),
        (8, 0, 300, 64),
        (8, 400, 50, 40),
        (3, 0, 1, 16),
        (16, 1500, 1000, 8),
        (0, 0, 300, 64),
        (0, 400, 50, 40),
        (0, 0, 1, 8),
    ],
)
def test_walks_and_frontiers_are_clean(
    harness, tree, threads, budget_rows, batch_rows, descriptors_max
):
    said = run(harness, "walk", tree, threads, budget_rows, batch_rows, descriptors_max)
    assert tuple(map(int, said.split())) == totals(tree)


@pytest.mark.parametrize("threads", [8, 0])
def test_cancelling_at_any_time_is_clean(harness, tree, threads):
    assert run(harness, "cancel", tree, threads, 0, 100, 64) == "cancelled\n"


@pytest.mark.parametrize("threads", [8, 0])
def test_five_descriptors_are_enough_for_eight_threads(harness, tree, threads):
    said = run(harness, "scarce", tree, threads, 0, 500, 500)
    assert tuple(map(int, said.split())) == totals(tree)


def test_without_descriptors_the_walk_fails_and_does_not_hang(harness, tree):
    assert run(harness, "none", tree, 4, 0, 500, 500) == f"failed {errno.EMFILE}\n"


@pytest.mark.parametrize(
    ("threads", "budget_rows", "batch_rows", "descriptors_max"),
    [(1, 0, 65536, 0), (8, 400, 50, 40), (0, 400, 50, 40)],
)
def test_walks_by_libcephfs_are_clean_and_give_back_all_inodes(
    harness, tree, threads, budget_rows, batch_rows, descriptors_max
):
    sizes = (threads, budget_rows, batch_rows, descriptors_max)
    said = run(harness, "walk", tree, *sizes, HARNESS_LIBCEPHFS=harness.with_suffix(".so"))
    assert tuple(map(int, said.split())) == totals(tree)


def test_cancelling_a_walk_by_libcephfs_is_clean(harness, tree):
    library = harness.with_suffix(".so")
    said = run(harness, "cancel", tree, 8, 0, 100, 64, HARNESS_LIBCEPHFS=library)
    assert said == "cancelled\n"


@pytest.mark.parametrize("names", [0, 1, 1000])
def test_a_client_that_is_shut_out_ends_the_walk(harness, tree, names):
    variables = {"HARNESS_LIBCEPHFS": harness.with_suffix(".so"), "STANDIN_SHUTDOWN_AFTER": names}
    said = run(harness, "walk", tree, 8, 0, 100, 64, **variables)
    assert said == f"failed {errno.ESHUTDOWN}\n"
