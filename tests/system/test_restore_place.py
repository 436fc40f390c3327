"""A restore over what is there: replace modes, planted links, several shards in one place."""

import os
import stat

import pytest

from tests.support.compare import compare_trees, format_differences

pytestmark = pytest.mark.bacula

PAST_NS = 1_000_000_000 * 10**9


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("place") / "tree"
    for folder in range(6):
        (root / f"d{folder}").mkdir(parents=True)
        for name in range(8):
            (root / f"d{folder}" / f"f{name}").write_text(f"saved {folder} {name}")
    (root / "link").symlink_to("d0/f0")
    return root


@pytest.fixture(scope="module")
def run(installation, tree):
    return installation.backup(tree, "--name", "place", "--shards", "3")


def restored(place, tree):
    return place / str(tree).lstrip("/")


def restore(installation, place, *arguments, code=0):
    done = installation.run("restore", "--name", "place", "--to", place, "-q", *arguments)
    assert done.code == code, done
    return done


def test_a_place_that_is_not_empty_needs_a_word(installation, run, tmp_path):
    (tmp_path / "file").touch()
    done = restore(installation, tmp_path, code=2)
    assert "is not empty" in done.err
    assert "--replace" in done.err
    assert os.listdir(tmp_path) == ["file"]


def test_links_planted_in_the_place_lead_nowhere(installation, run, tree, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f1").write_text("victim")
    before = outside.stat().st_mtime_ns
    place = tmp_path / "place"
    target = restored(place, tree)
    target.mkdir(parents=True)
    (target / "d1").symlink_to(outside)
    (target / "d2").mkdir()
    (target / "d2" / "f1").symlink_to(outside / "f1")
    os.link(outside / "f1", target / "d2" / "f2")
    restore(installation, place, "--replace", "always")
    assert (outside / "f1").read_text() == "victim"
    assert os.listdir(outside) == ["f1"]
    assert outside.stat().st_mtime_ns == before
    differences = compare_trees(tree, target)
    assert not differences, format_differences(differences)


@pytest.mark.parametrize(
    ("mode", "kept"),
    [
        ("always", set()),
        ("never", {"older", "newer"}),
        ("ifnewer", {"newer"}),
        ("ifolder", {"older"}),
    ],
)
def test_replace_modes_are_bacula_s(installation, run, tree, tmp_path, mode, kept):
    place = tmp_path / "place"
    target = restored(place, tree)
    (target / "d0").mkdir(parents=True)
    files = {"older": target / "d0" / "f0", "newer": target / "d0" / "f1"}
    for age, path in files.items():
        path.write_text("here before")
        time_ns = PAST_NS if age == "older" else tree.stat().st_mtime_ns + 10**15
        os.utime(path, ns=(time_ns, time_ns))
    restore(installation, place, "--replace", mode)
    for age, path in files.items():
        assert (path.read_text() == "here before") == (age in kept), age
    assert (target / "d0" / "f2").read_text() == "saved 0 2"
    assert (target / "d5" / "f7").stat().st_mtime_ns == (tree / "d5" / "f7").stat().st_mtime_ns
    assert (target / "d5").stat().st_mtime_ns == (tree / "d5").stat().st_mtime_ns


def test_no_mode_leaves_marks_on_the_directories_above(installation, run, tree, tmp_path):
    place = tmp_path / "place"
    restore(installation, place, "--replace", "never")
    above = restored(place, tree).parent
    while above != place:
        assert stat.S_IMODE(above.stat().st_mode) == 0o700
        above = above.parent
    differences = compare_trees(tree, restored(place, tree))
    assert not differences, format_differences(differences)


def test_in_place_needs_the_flag_and_brings_back_what_was_lost(installation, run, tree):
    done = installation.run("restore", "--name", "place")
    assert done.code == 2
    assert "--in-place" in done.err
    lost = tree / "d3" / "f3"
    lost.unlink()
    (tree / "d3" / "f4").write_text("changed since")
    arguments = ("--name", "place", "--in-place", "--replace", "never", "--path", "d3", "-q")
    installation.ok("restore", *arguments)
    assert lost.read_text() == "saved 3 3"
    assert (tree / "d3" / "f4").read_text() == "changed since"


def test_a_path_that_is_not_in_the_run_is_named(installation, run, tmp_path):
    done = restore(installation, tmp_path / "place", "--path", "d0", "--path", "d99", code=2)
    assert "nothing at d99" in done.err
    assert not (tmp_path / "place").exists()
