"""Build the kernels; everything else is in pyproject.toml."""

from setuptools import setup

setup(
    cffi_modules=[
        "filesystems/kernel/build_kernel.py:ffi",
        "filesystems/lustre/kernel/build_kernel.py:ffi",
    ]
)
