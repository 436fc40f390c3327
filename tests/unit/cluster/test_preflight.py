"""What nodes say of themselves, and the first thing that is wrong with them.

Covers: another version, another user, another state directory, roots that differ or are missing,
folders for sockets that are not ours.
Does not cover: asking the nodes (tests/system/test_site_start.py).
"""

import dataclasses
import os
import platform

import pytest

from bacula_bridge.catalog import Catalog
from cluster import preflight
from cluster.preflight import NodeFacts, NodesDiffer, Root
from cluster.site_config import check

PROBE = "what was written there"
GOOD = Root("", inode=2, adapter="posix", mount_type="ext4")
FACTS = NodeFacts(
    "host", preflight.program_version(), platform.python_version(), 0, PROBE, {"data": GOOD}, ""
)


def config():
    movers = [{"name": name, "client": f"{name}-fd"} for name in ("m1", "m2")]
    return check(
        {
            "state": "/srv/state",
            "bacula": {"catalog": "/srv/bacula.db"},
            "mover": movers,
            "dataset": [{"name": "data", "root": "/srv/data", "shards": 2}],
        },
        "forebay.toml",
    )


def compare(**otherwise):
    facts = {"m1": FACTS, "m2": dataclasses.replace(FACTS, **otherwise)}
    preflight._compare(config(), facts, PROBE)


def test_nodes_that_are_alike_are_good():
    compare(host="another")


@pytest.mark.parametrize(
    ("otherwise", "said"),
    [
        ({"forebay": "1.1"}, "it has Forebay 1.1"),
        ({"python": "2.7.1"}, "on Python 2.7.1"),
        ({"user": 1000}, "run it as one user everywhere"),
        ({"probe": ""}, "/srv/state is not the directory that m1 has there"),
        ({"probe": "of another filesystem"}, "/srv/state is not the directory"),
        ({"catalog": "the catalog x cannot be read: y"}, "let it ask the Director's catalog"),
        ({"runtime": "/run/forebay can be written to by others"}, "/run/forebay can be written"),
        (
            {"roots": {"data": dataclasses.replace(GOOD, inode=3)}},
            "/srv/data is inode 3 of ext4 there, and inode 2 of ext4 on m1",
        ),
        (
            {"roots": {"data": dataclasses.replace(GOOD, mount_type="tmpfs")}},
            "mount the same filesystem at the same path on all movers",
        ),
        ({"roots": {"data": Root("/srv/data does not exist")}}, "mount it there, or correct root"),
    ],
)
def test_a_node_that_differs_is_named_with_what_to_do(otherwise, said):
    with pytest.raises(NodesDiffer) as refused:
        compare(**otherwise)
    assert str(refused.value).startswith("mover m2: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_node_says_what_it_has(tmp_path):
    (tmp_path / "probe").write_text(PROBE)
    (tmp_path / "tree").mkdir()
    roots = {"there": str(tmp_path / "tree"), "gone": str(tmp_path / "no")}
    catalog = Catalog(tmp_path / "no" / "bacula.db")
    facts = preflight.look(roots, str(tmp_path / "run"), str(tmp_path / "probe"), catalog)
    assert (facts.probe, facts.runtime) == (PROBE, "")
    assert facts.roots["there"].inode == os.stat(tmp_path / "tree").st_ino
    assert "does not exist" in facts.roots["gone"].error
    assert facts.catalog.startswith(f"the catalog {tmp_path}/no/bacula.db cannot be read: ")
    assert (tmp_path / "run").stat().st_mode & 0o777 == 0o700


def test_a_folder_for_sockets_that_is_not_ours_alone_is_named(tmp_path):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    assert "can be written to by others" in preflight._make_runtime(tmp_path / "open")
    assert preflight._make_runtime(tmp_path / "file")
    assert "is not a folder of" in preflight._make_runtime(tmp_path / "link")
    assert "cannot be made" in preflight._make_runtime(tmp_path / "no" / "run")
