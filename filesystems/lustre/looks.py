"""Where a record makes us look: why it is enough.

Covers: what has to be compared after a record, merging of what was to be compared anyway.
Does not cover: doing so (kernel/looks.c), keeping it (log), finding out where it is now (resolve).

Only the *set* of places is kept, each with the newest sequence, so the order of records does not
matter, neither on one metadata target nor between two. Nor does it matter whether a rename between
two targets left its record on both or on one of them: each such record names both places. Why a
set of places is exact is argued in filesystems/fanotify/looks.py; it holds here with FIDs for
handles, which are never used again. What differs:

- RENME does not say whether a directory was moved, and all below one moves with it. Where an
  earlier record told that the FID is no directory the two names are enough; else they are TREE
  looks that carry the FID (`about`), so that it can be asked once, when changes are looked up.
- MTIME, CTIME and ATIME records are left out by Lustre for an object that has another record of
  its data or attributes (CLOSE, LYOUT, TRUNC, SATTR, XATTR, HSM, FLRW, RESYNC and those three:
  stored by one function of the metadata server) since anything was last cleared. So all of those
  are looked at, ATIME as well, and looking has to come after clearing.
- An inode whose last name is removed in the same batch is not looked at: its FID leads nowhere, and
  each of its names was removed by a record that names the place. So of a file that came and went
  its place is left, and nothing is asked about it. The place itself has to stay: a run may have
  read the file in between.
- LYOUT of a directory (`lfs migrate -m`, `lfs setdirstripe`) may destroy stripes that earlier
  records name as the directory, and nothing leads from those to it any more. So all below it is
  looked at. Of a file nothing more is: the TREE is about the target itself.
- MIGRT gives a file another FID, hence another inode number: the old and the new one are looked at.

Types that change nothing that is saved (OPEN, NOPEN, GXATR) are skipped. A type that is not
known here is looked at as the most that its fields can mean: the target, its name with all below
it, and the same of a source. A record whose names cannot be found in it (records) makes us look at
all below its directories.
"""

from __future__ import annotations

from enum import IntEnum


class Kind(IntEnum):
    """What has to be compared; the numbers are in the log."""

    ENTRY = 2  # a name in a directory, and the directory, whose times moved
    TREE = 3  # the name with all below it, and the directory
    INODE = 4  # all names of an inode; the name is empty
