"""Contents that were read back are compared with what was sent, also where files have holes."""

import os
from collections import Counter
from types import SimpleNamespace

import pytest
import xxhash

from cluster import verify_data
from cluster.chains import ShardChain
from cluster.restore_plan import RestorePlan
from cluster.verify import Findings
from cluster.verify_data import DataCounts, ScratchTooSmall, _check, _Folders, _portions, _Row

FILE, LINK, FIFO = 0o100644, 0o120777, 0o010644


@pytest.fixture
def checked(tmp_path):
    """Check one row against what is below tmp_path; return (kinds found, counts)."""

    def check(path, *, sent=None, size=None, mode=FILE, is_link=False, due=False):
        content = b"".join(sent) if sent is not None else b""
        digest = xxhash.xxh3_128(content).digest() if sent is not None else bytes(16)
        size = len(content) if size is None else size
        row = _Row(path, mode, size, len(content), digest, is_link, due, 5)
        counts, told = DataCounts(), []
        findings = Findings(told.append, Counter())
        folders = _Folders(tmp_path)
        _check(row, folders, counts, findings)
        folders.close()
        return [difference.text for difference in told], counts

    return check


def write(path, size, *extents):
    """Write a file with holes between the extents, as a restore does."""
    with path.open("wb") as stream:
        for offset, data in extents:
            os.pwrite(stream.fileno(), data, offset)
        os.ftruncate(stream.fileno(), size)


def test_a_file_is_compared_by_all_its_bytes(checked, tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "f").write_bytes(content)
    told, counts = checked(b"f", sent=[content])
    assert not told
    assert (counts.files, counts.bytes) == (1, len(content))
    other = content[:2_000_000] + bytes([content[2_000_000] ^ 1]) + content[2_000_001:]
    assert "content is not what was sent" in checked(b"f", sent=[other])[0][0]
    assert "bytes came back, not" in checked(b"f", sent=[content[:-1]])[0][0]
    (tmp_path / "empty").touch()
    assert not checked(b"empty", sent=[b""])[0]


def test_what_did_not_come_back_or_came_as_something_else_is_told(checked, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    assert "No such file" in checked(b"f", sent=[b"x"])[0][0]
    assert "mode" in checked(b"folder", sent=[b"x"])[0][0]
    assert "cannot be read back" in checked(b"link/f", sent=[b"x"])[0][0], "a link is not followed"
    told, counts = checked(b"link", mode=LINK)
    assert not told
    assert counts.others == 1
    assert "mode" in checked(b"link", mode=FIFO)[0][0]


def test_links_are_compared_by_size_and_due_names_are_counted(checked, tmp_path):
    (tmp_path / "f").write_bytes(b"data")
    told, counts = checked(b"f", size=4, is_link=True)
    assert not told
    assert counts.links == 1
    assert checked(b"f", size=5, is_link=True)[0]
    assert "no content hash" in checked(b"f", size=4)[0][0]
    told, counts = checked(b"f", sent=[b"else"], due=True)
    assert not told
    assert counts.due == 1


BLOCK = 4096
HOLES = [
    (3 * BLOCK, [(BLOCK, os.urandom(BLOCK)), (3 * BLOCK - 1, b"\0")]),  # it ended in a hole
    (3 * BLOCK + 5, [(BLOCK, os.urandom(BLOCK)), (3 * BLOCK + 4, b"\0")]),
    (2 * BLOCK, [(0, os.urandom(BLOCK)), (2 * BLOCK - 1, b"\0")]),  # the hole's block is next
    (9 * BLOCK, [(9 * BLOCK - 1, b"\0")]),  # nothing but a hole
    (9 * BLOCK, [(0, os.urandom(2 * BLOCK)), (8 * BLOCK, os.urandom(BLOCK))]),
]


@pytest.mark.parametrize(("size", "extents"), HOLES)
def test_a_sparse_file_is_compared_by_its_extents(checked, tmp_path, size, extents):
    write(tmp_path / "f", size, *extents)
    sent = [data for _, data in extents]
    told, counts = checked(b"f", sent=sent, size=size)
    assert not told
    assert (counts.sparse, counts.files, counts.by_size) == (1, 1, 0)
    first = bytes([sent[0][0] ^ 1]) + sent[0][1:]
    told, counts = checked(b"f", sent=[first, *sent[1:]], size=size)
    assert told or counts.by_size == 1
    assert counts.sparse == 0


def test_what_stands_in_the_hole_at_the_end_of_a_sparse_file_is_zero(checked, tmp_path):
    data = os.urandom(BLOCK)
    write(tmp_path / "f", 3 * BLOCK, (0, data), (3 * BLOCK - 9, b"not zero"))
    assert "content" in checked(b"f", sent=[data, b"\0"], size=3 * BLOCK)[0][0]


def test_extents_that_are_not_those_that_were_sent_leave_the_size(checked, tmp_path):
    data = os.urandom(BLOCK)
    write(tmp_path / "f", 4 * BLOCK, (0, data), (BLOCK, bytes(BLOCK)), (2 * BLOCK, data))
    told, counts = checked(b"f", sent=[data, data], size=4 * BLOCK)
    assert not told
    assert (counts.sparse, counts.by_size, counts.files) == (0, 1, 0)


def test_folders_are_left_and_entered_as_paths_come(checked, tmp_path):
    folders = _Folders(tmp_path)
    for path in (b"a/b/c/f", b"a/b/f", b"a/bb/f", b"f", b"a/f", b"z/f"):
        target = tmp_path / os.fsdecode(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path)
        folder, name = folders.parent(path)
        descriptor = os.open(name, os.O_RDONLY, dir_fd=folder)
        assert os.read(descriptor, 100) == path
        os.close(descriptor)
    folders.close()


def test_shards_are_read_together_if_there_is_room(tmp_path, monkeypatch):
    chains = [SimpleNamespace(chain=ShardChain(shard, None)) for shard in range(3)]
    plan = RestorePlan(1, {})
    plan.sources = [{"shard": shard, "bytes": 1000 * shard, "names": 0} for shard in (0, 1, 2, 2)]

    def portions(free):
        monkeypatch.setattr(
            verify_data.shutil, "disk_usage", lambda path: SimpleNamespace(free=free)
        )
        return _portions(plan, chains, tmp_path)

    assert portions(5000) == [[0, 1, 2]]
    assert portions(4999) == [[0], [1], [2]]
    assert portions(4000) == [[0], [1], [2]]
    with pytest.raises(ScratchTooSmall):
        portions(3999)
