"""Filesystems behind one interface: enumerating the names of a tree, whatever serves it.

Covers: the interface, one adapter per filesystem, the walker kernel they share.
Does not cover: who walks what and when (actors), what becomes of the rows (shards, bacula_bridge).
"""
