"""CephFS: what its clients tell beyond POSIX.

Covers: recursive change times as a change source.
Does not cover: walking (posix, through the mount), layouts (bacula_bridge/plugin).
"""
