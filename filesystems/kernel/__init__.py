"""The walker kernel: C that enumerates directories and fills Arrow columns, and its binding.

Nothing but filesystems imports this package, and no cffi object leaves it.
"""
