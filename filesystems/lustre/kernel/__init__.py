"""The changelog kernel: C that reads records and gathers places to look at, and its binding.

Nothing but filesystems.lustre imports this package, and no cffi object leaves it.
"""
