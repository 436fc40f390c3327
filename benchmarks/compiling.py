"""Compile the C programs of the benchmarks, once for each state of their source.

Covers: the cache of programs below the user's cache directory.
Does not cover: C that is part of the product.
"""

import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.runner import BenchmarkFailed

COMPILER = "cc"
FLAGS = ("-std=gnu11", "-O2", "-g", "-Wall", "-Wextra", "-Wconversion", "-Wshadow")
TIMEOUT_S = 120.0


@functools.cache
def compiled(name: str, files: Sequence[Path], flags: Sequence[str] = ()) -> Path:
    """Compile the .c among the files; all of them, and the flags, decide whether it is new."""
    if shutil.which(COMPILER) is None:
        raise BenchmarkFailed(f"{name} needs a C compiler: no program `{COMPILER}` here")
    digest = hashlib.sha256("\0".join((*FLAGS, *flags)).encode())
    for file in files:
        digest.update(file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "forebay"
    program = cache / f"{name}-{digest.hexdigest()[:16]}"
    if program.exists():
        return program
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        output = Path(folder, name)
        sources = [file for file in files if file.suffix == ".c"]
        done = subprocess.run(
            [COMPILER, *FLAGS, "-o", output, *sources, *flags],
            check=False,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
        )
        if done.returncode != 0:
            raise BenchmarkFailed(f"{name} does not compile: {done.stderr.strip()}")
        output.rename(program)
    return program
