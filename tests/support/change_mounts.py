"""What mounting and unmounting does to a change reader, played in a mount namespace of its own.

Covers: the scenarios, each a function that fails by an assertion.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from filesystems.fanotify.errors import WatchEnded, WatchUnsupported
from filesystems.fanotify.reader import Reader
from shards.changes import Gap
from tests.support.change_histories import in_own_namespace, mount, running_reader


def gap(action: Callable[[], object]) -> str:
    """Return the sentence of the gap that an action must end in."""
    try:
        action()
    except Gap as found:
        return str(found)
    raise AssertionError("there was no gap")


def refused(root: Path, changes: Path) -> str:
    """Return the sentence by which a reader must refuse a root."""
    try:
        Reader("set", bytes(root), changes)
    except WatchUnsupported as error:
        return str(error)
    raise AssertionError("it is watched")


def unmounted(folder: Path, mounted: Path) -> None:
    """A reader does not keep its filesystem mounted, and ends when it is gone."""
    with mount("ext4", mounted, folder / "image"):
        (mounted / "root").mkdir()
        ended = running_reader("set", bytes(mounted / "root"), folder / "changes")
        source = ended.__enter__()
        source.position()
    (mounted / "root").mkdir()  # on what was below the mount
    assert "was unmounted" in gap(source.position)
    try:
        ended.__exit__(None, None, None)
    except WatchEnded:
        return
    raise AssertionError("the reader went on")


def remounted(folder: Path, mounted: Path) -> None:
    """The same filesystem mounted again is the same root, and still a gap."""
    image = folder / "image"
    image.write_bytes(b"")
    os.truncate(image, 64 << 20)
    subprocess.run(["mkfs.ext4", "-q", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    (mounted / "root").mkdir()
    ended = running_reader("set", bytes(mounted / "root"), folder / "changes")
    source = ended.__enter__()
    before = source.position()
    subprocess.run(["umount", mounted], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    (mounted / "root" / "x").touch()  # seen by nobody
    assert "was unmounted" in gap(lambda: source.changes(before))
    try:
        ended.__exit__(None, None, None)
    except WatchEnded:
        pass
    else:
        raise AssertionError("the reader went on")
    subprocess.run(["umount", mounted], check=True)


def mounted_below(folder: Path, mounted: Path) -> None:
    """What a mount hides, and what an unmount shows again, is looked at."""
    with mount("tmpfs", mounted, folder / "image"):
        root = mounted / "root"
        (root / "a b\\").mkdir(parents=True)
        with running_reader("set", bytes(root), folder / "changes") as source:
            before = source.position()
            with mount("tmpfs", root / "a b\\", folder / "image"):
                assert source.changes(before).subtrees == [b"a b\\"]
                middle = source.position()
                assert source.changes(middle).subtrees == []
            assert source.changes(middle).subtrees == [b"a b\\"]


def subvolume(folder: Path, mounted: Path) -> None:
    """Linux cannot watch a filesystem by one of its btrfs subvolumes; the top level it can."""
    with mount("btrfs", mounted, folder / "image"):
        below = mounted / "below"
        subprocess.run(
            ["btrfs", "subvolume", "create", below], check=True, stdout=subprocess.DEVNULL
        )
        assert "subvolume" in refused(below, folder / "changes")
        # Changes in a subvolume below the root are no part of the tree, and do no harm.
        with running_reader("set", bytes(mounted), folder / "changes") as source:
            before = source.position()
            (below / "x").write_text("x")
            (mounted / "y").write_text("y")
            assert b"y" in source.changes(before).names


def fuse_like(folder: Path, mounted: Path) -> None:
    """A filesystem without handles is refused with a reason, and leaves no state."""
    assert "scan instead" in refused(Path("/proc"), folder / "changes")
    assert not (folder / "changes").exists()


def bound_elsewhere(folder: Path, mounted: Path) -> None:
    """A root on a bind mount, changed through another mount of the same filesystem."""
    with mount("tmpfs", mounted, folder / "image"):
        (mounted / "part" / "deep").mkdir(parents=True)
        bound = folder / "bound"
        bound.mkdir()
        subprocess.run(["mount", "--bind", mounted / "part", bound], check=True)
        try:
            with running_reader("set", bytes(bound), folder / "changes") as source:
                before = source.position()
                (mounted / "part" / "deep" / "x").touch()
                (mounted / "outside").touch()
                assert source.changes(before).names == [b"deep", b"deep/x"]
        finally:
            subprocess.run(["umount", bound], check=True)


SCENARIOS = {
    action.__name__: action
    for action in (unmounted, remounted, mounted_below, subvolume, fuse_like, bound_elsewhere)
}


def main() -> None:
    """Play the named scenario in a folder."""
    folder = Path(sys.argv[2])
    mounted = folder / "mounted"
    mounted.mkdir()
    with in_own_namespace():
        SCENARIOS[sys.argv[1]](folder, mounted)


if __name__ == "__main__":
    main()
