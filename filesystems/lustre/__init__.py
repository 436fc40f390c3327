"""Lustre changelogs as a change source: what changed, as the metadata targets recorded it.

Covers: the client library, the records, the log of places, and looking changes up in it.
Does not cover: which dataset has it (filesystems.change_sources), what a run does with changes.
"""
