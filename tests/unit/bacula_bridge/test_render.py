"""Bacula's configuration as text."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from bacula_bridge import render
from bacula_bridge.errors import BadValue
from bacula_bridge.render import LabSettings, Passwords, Ports, Targets
from shards.ledger_schema import HsmPolicy

LAB = LabSettings(
    Path("/srv/a lab"), Ports(1001, 1002, 1003), Passwords("pc", "ps", "pf"), 3, "/run/fb.sock"
)


def directive(text: str, name: str) -> list[str]:
    return re.findall(rf"^ *{re.escape(name)} = (.*)$", text, re.MULTILINE)


def blocks(text: str, resource: str) -> list[str]:
    return re.findall(rf"^{resource} {{\n(.*?)^}}\n", text, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(
    ("policy", "part"),
    [(HsmPolicy.SKIP, ""), (HsmPolicy.STUB, ":hsm=stub"), (HsmPolicy.RECALL, ":hsm=recall")],
)
def test_the_plugin_command_says_what_becomes_of_released_files(policy, part):
    text = render.dataset_config("home", 1, hsm=policy)
    assert directive(text, "Plugin") == [f'"forebay:dataset=home:shard=0/1{part}"']


def test_a_datasets_resources_are_as_published():
    assert (
        render.dataset_config("home", 2, Targets("fd7", "sd1", "full", "std"))
        == """\
JobDefs {
  Name = "forebay-home"
  Type = Backup
  Level = Full
  Client = "fd7"
  FileSet = "forebay-home-0"
  Storage = "sd1"
  Pool = "full"
  Messages = "std"
  Prefer Mounted Volumes = no
  Spool Attributes = yes
  Accurate = no
  Allow Duplicate Jobs = yes
  Allow Incomplete Jobs = no
  Maximum Concurrent Jobs = 576
}

FileSet {
  Name = "forebay-home-0"
  Include {
    Options { }
    Plugin = "forebay:dataset=home:shard=0/2"
  }
}

Job {
  Name = "forebay-home-0"
  JobDefs = "forebay-home"
  FileSet = "forebay-home-0"
}

FileSet {
  Name = "forebay-home-1"
  Include {
    Options { }
    Plugin = "forebay:dataset=home:shard=1/2"
  }
}

Job {
  Name = "forebay-home-1"
  JobDefs = "forebay-home"
  FileSet = "forebay-home-1"
}
"""
    )


def test_jobs_run_at_once_wherever_bacula_would_allow_one():
    director = render.director_config(LAB, [])
    for resource in ("Director", "Client", "Autochanger", "Job"):
        [block] = blocks(director, resource)
        [limit] = directive(block, "Maximum Concurrent Jobs")
        assert int(limit) > 2 * render.SHARDS_MAX, resource
    for text in (render.storage_config(LAB), render.file_daemon_config(LAB)):
        [limit] = [each for each in directive(text, "Maximum Concurrent Jobs") if each != "1"]
        assert int(limit) > 2 * render.SHARDS_MAX


def test_each_job_gets_a_drive_and_a_volume_of_its_own():
    storage = render.storage_config(LAB)
    drives = blocks(storage, "Device")
    assert [directive(drive, "Drive Index") for drive in drives] == [["0"], ["1"], ["2"]]
    assert all(directive(drive, "Maximum Concurrent Jobs") == ["1"] for drive in drives)
    [changer] = blocks(storage, "Autochanger")
    assert directive(changer, "Device") == [", ".join(f'"forebay-drive-{n}"' for n in range(3))]
    assert directive(render.pool_config(), "Maximum Volume Jobs") == ["1"]
    assert directive(render.dataset_config("x", 1), "Prefer Mounted Volumes") == ["no"]


def test_tls_stays_on_and_everything_listens_on_loopback_only():
    texts = [
        render.director_config(LAB, []),
        render.storage_config(LAB),
        render.file_daemon_config(LAB),
        render.console_config(LAB),
    ]
    assert not any("TLS" in text for text in texts)
    for name in ("DirAddress", "SDAddress", "FDAddress", "Address"):
        for text in texts:
            assert set(directive(text, name)) <= {"127.0.0.1"}
    assert directive(texts[0], "DirAddress")


def test_a_lab_on_another_address_listens_and_is_reached_there_only():
    there = replace(LAB, address="198.51.100.1")
    texts = [
        render.director_config(there, []),
        render.storage_config(there),
        render.file_daemon_config(there),
        render.console_config(there),
    ]
    names = ("DirAddress", "SDAddress", "FDAddress", "Address")
    found = [value for text in texts for name in names for value in directive(text, name)]
    assert found == ["198.51.100.1"] * 6


def test_the_file_daemon_hands_the_socket_to_the_plugin():
    text = render.file_daemon_config(LAB)
    assert directive(text, "Plugin Options") == ['"forebay:socket=/run/fb.sock"']
    assert directive(text, "Plugin Directory") == ['"/srv/a lab/plugins"']


def test_the_director_includes_the_datasets_files():
    text = render.director_config(LAB, [Path("/srv/a lab/conf/jobs/x.conf")])
    assert '@"/srv/a lab/conf/jobs/x.conf"\n' in text


def test_strings_are_quoted_so_that_bacula_reads_them_back():
    assert render.quote('a "b" \\c') == '"a \\"b\\" \\\\c"'
    assert render.quote("\udcff") == '"\udcff"'
    assert 'File = "/a \\"b\\""' in render.plain_job_config("p", '/a "b"')
    with pytest.raises(BadValue):
        render.quote("two\nlines")


@pytest.mark.parametrize("name", ["", "a b", "a/b", 'a"b', "a:b", "x" * 65, "ä", "a\n"])
def test_a_name_that_cannot_be_part_of_a_resource_is_refused(name: str):
    with pytest.raises(BadValue):
        render.dataset_config(name, 1)


@pytest.mark.parametrize("shards", [0, -1, render.SHARDS_MAX + 1])
def test_a_number_of_shards_out_of_bounds_is_refused(shards: int):
    with pytest.raises(BadValue):
        render.dataset_config("x", shards)


@pytest.mark.parametrize("path", ["relative", "/a:b", "/" + "x" * 107, "/" + "ü" * 54, "/a\nb"])
def test_a_socket_path_that_cannot_work_is_refused(path: str):
    with pytest.raises(BadValue):
        render.check_socket(path)
    assert render.check_socket("/" + "x" * 106)


def test_names_of_shards_never_collide_between_datasets():
    names = {
        render.job_name(dataset, shard)
        for dataset in ("a", "a-1", "a-1-0", "1", "-")
        for shard in range(12)
    }
    assert len(names) == 60
