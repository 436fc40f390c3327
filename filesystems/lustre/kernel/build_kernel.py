"""Describe the changelog kernel to cffi, which compiles it as filesystems.lustre.kernel._changelog.

Covers: the declarations (taken from changelog.h, so that there is one source), sources and flags.
Does not cover: using the module (native.py beside it).
"""

from __future__ import annotations

from pathlib import Path

from cffi import FFI

FOLDER = Path(__file__).resolve().parent
SOURCES = ("looks.c", "places.c", "records.c")


def declarations() -> str:
    """Return the part of the header that is meant for cffi."""
    text = (FOLDER / "changelog.h").read_text(encoding="utf-8")
    return text[text.index("/* cdef begin */") : text.index("/* cdef end */")]


ffi = FFI()
ffi.cdef(declarations())
# As of the walker kernel: no -Werror, and paths relative to setup.py.
ffi.set_source(
    "filesystems.lustre.kernel._changelog",
    '#include "changelog.h"',
    sources=[f"filesystems/lustre/kernel/{name}" for name in SOURCES],
    depends=["filesystems/lustre/kernel/changelog.h"],
    include_dirs=[str(FOLDER)],
    extra_compile_args=["-std=c11", "-O2", "-Wall", "-Wextra", "-Wno-unused-parameter"],
)
