"""Build the walker kernel; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["filesystems/kernel/build_kernel.py:ffi"])
