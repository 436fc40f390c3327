"""CephFS: a file layout as text (docs.ceph.com/en/latest/cephfs/file-layouts).

Covers: reading it, for people.
Does not cover: saving and restoring it (bacula_bridge/plugin/layout_ceph.c).
"""

from __future__ import annotations


def describe(text: bytes) -> dict[str, object]:
    """Return the fields of a layout; numbers as numbers, anything else as text."""
    fields: dict[str, object] = {}
    for word in text.decode("utf-8", "backslashreplace").split(" "):
        name, _, value = word.partition("=")
        fields[name] = int(value) if value.isdecimal() else value
    return fields
