"""Describe the walker kernel to cffi, which compiles it as filesystems.kernel._walk.

Covers: the declarations (taken from walk.h, so that there is one source), sources and flags.
Does not cover: using the module (filesystems/kernel/native.py).

setup.py names `ffi` here. In a checkout `python setup.py build_ext --inplace` compiles it again.
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

FOLDER = Path(__file__).resolve().parent
SOURCES = (
    "arrow.c",
    "batch.c",
    "cephfs.c",
    "directories.c",
    "listing.c",
    "opening.c",
    "pace.c",
    "rows.c",
    "system.c",
    "tasks.c",
    "threads.c",
    "walk.c",
)
HEADERS = ("arrow_c.h", "internal.h", "pace.h", "walk.h")


def declarations() -> str:
    """Return the parts of the headers that are meant for cffi."""
    parts = []
    for header in ("walk.h", "pace.h"):
        text = (FOLDER / header).read_text(encoding="utf-8")
        parts.append(text[text.index("/* cdef begin */") : text.index("/* cdef end */")])
    return "".join(parts)


ffi = FFI()
# Python only passes pointers to these two on to pyarrow.
ffi.cdef("struct ArrowSchema { ...; }; struct ArrowArray { ...; };")
ffi.cdef(declarations())
# No -Werror here: a newer compiler's new warning must not keep anybody from installing. The tests
# compile the sources with it.
ffi.set_source(
    "filesystems.kernel._walk",
    '#include "pace.h"\n#include "walk.h"',
    # setuptools wants paths relative to setup.py, which is where pip runs it.
    sources=[f"filesystems/kernel/{name}" for name in SOURCES],
    depends=[f"filesystems/kernel/{name}" for name in HEADERS],
    include_dirs=[str(FOLDER)],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-pthread"],
    extra_link_args=["-pthread", "-ldl"],
)
