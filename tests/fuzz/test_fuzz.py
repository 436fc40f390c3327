"""A short, repeatable sample of each fuzzer, under AddressSanitizer and UBSan.

Covers: the harnesses of this directory that bring the project's own driver (more with
FOREBAY_FUZZ_ITERATIONS); `make nightly` has libFuzzer search for minutes with all of them.
Does not cover: layouts, whose sample is in tests/plugin/test_layout_formats.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.fuzz.seeds import INPUTS

HERE = Path(__file__).resolve().parent
ITERATIONS = int(os.environ.get("FOREBAY_FUZZ_ITERATIONS", "20000"))
NAMES = sorted(path.stem[5:] for path in HERE.glob("fuzz_*.c") if "fuzz_main.h" in path.read_text())
SEED_FILES_MAX = 64  # tests/plugin/fuzz_main.h


@pytest.mark.parametrize("name", NAMES)
def test_no_input_touches_foreign_memory(name: str, tmp_path: Path):
    if shutil.which("cc") is None or shutil.which("make") is None:
        pytest.skip("fuzzers need `make` and a C compiler")
    make = ["make", "--silent", "--directory", str(HERE), f"BUILD={tmp_path}", f"driver_{name}"]
    subprocess.run(make, check=True, timeout=300)
    paths = [tmp_path / f"seed{number}" for number in range(len(INPUTS[name]()))]
    assert len(paths) <= SEED_FILES_MAX
    for path, seed in zip(paths, INPUTS[name](), strict=True):
        path.write_bytes(seed)
    command = [str(tmp_path / f"driver_{name}"), str(ITERATIONS), "20260101", *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120 + ITERATIONS / 200)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{ITERATIONS} inputs from {len(paths)} seeds\n"
