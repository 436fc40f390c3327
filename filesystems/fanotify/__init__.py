"""fanotify as a change source: what changed on a local filesystem, as Linux itself reports it.

Covers: the kernel's interface, the reader that keeps the log, and looking changes up in it.
Does not cover: starting the reader (cluster.watching), what a run does with changes.
"""
