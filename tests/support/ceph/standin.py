"""The stand-in for libcephfs (standin.c), compiled.

Covers: making the library.
Does not cover: loading it; whoever does names its path.
"""

import shutil
import subprocess
from pathlib import Path

import pytest

SOURCE = Path(__file__).with_suffix(".c")


def compile_standin(library: Path, *flags: str) -> Path:
    """Compile the library; the test is skipped without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler here")
    warnings = ["-std=c11", "-O1", "-g", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = [compiler, *warnings, *flags, "-shared", "-fPIC", str(SOURCE), "-o", str(library)]
    subprocess.run(command, check=True)
    return library
