"""CephFS: what its clients tell beyond POSIX.

Covers: walking by libcephfs or through the mount, recursive change times as a change source.
Does not cover: layouts (bacula_bridge/plugin).
"""
