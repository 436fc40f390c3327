"""A stand-in for Lustre: the client library on files, and a tree that writes changelogs.

Covers: standin.c as a shared object, targets and consumers, changes of a real tree with the
records that a metadata server would have stored.
"""
