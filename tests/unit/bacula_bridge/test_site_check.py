"""What a Director and its daemons say, and what is made of it."""

import pytest

from bacula_bridge.director_view import parse_client, parse_director, parse_storage
from bacula_bridge.render_site import Site, SiteDataset, SiteMover
from bacula_bridge.site_check import compare, compare_client, compare_storage

MOVER = SiteMover("a", "a-fd", "/run/forebay/bridge.sock")
SITE = Site(
    movers=(MOVER,),
    datasets=(
        SiteDataset("home", (MOVER,) * 3, "sd", "p"),
        SiteDataset("work", (MOVER,) * 2, "sd", "p"),
    ),
    messages="m",
    restore_job="r",
    program="/usr/bin/forebay",
)

CLIENT = """\
Connecting to Client a-fd at 127.0.0.1:45405

a-fd Version: 15.0.3 (25 March 2025)  x86_64-pc-linux-gnu debian trixie/sid
Daemon started 22-Nov-26 19:40. Jobs: run=0 running=0 max=21.
 Heap: heap=716,800 smbytes=242,521 max_bytes=242,522 bufs=108 max_bufs=108
 Plugin: bpipe(2) forebay(0.1.0)

Running Jobs:
"""
STORAGE = """\
Connecting to Storage daemon sd at 127.0.0.1:59441

sd Version: 15.0.3 (25 March 2025) x86_64-pc-linux-gnu debian trixie/sid
Daemon started 22-Nov-26 19:40. Jobs: run=0, running=0 max=20.

Device status:
Autochanger "changer" with devices:
   "drive 0" (/volumes)
   "drive-1" (/volumes)
   "drive-2" (/volumes)
   "drive-3" (/volumes)

Device File: "drive 0" (/volumes) is not open.
==

Device Tape: "alone" (/dev/nst0) is mounted with:
    Volume: x
==
"""
UNREACHED = """\
Connecting to Client a-fd at 127.0.0.1:45405
Failed to connect to Client a-fd.
====
"""


def said(findings):
    return [(f.severity, f.directive, f.found, f.wanted) for f in findings]


def test_a_file_daemon_with_the_plugin_and_room_is_as_it_should_be():
    status = parse_client(CLIENT)
    assert (status.version, status.max_jobs, status.plugins) == ("15.0.3", 21, ("bpipe", "forebay"))
    assert said(compare_client(SITE, "a-fd", status)) == []


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        ("max=21", "max=20", ("hint", "Maximum Concurrent Jobs", "20", "21 or more")),
        ("max=21", "max=4", ("change", "Maximum Concurrent Jobs", "4", "21 or more")),
        (
            " forebay(0.1.0)",
            "",
            ("change", "Plugin Directory", "bpipe", "a folder with forebay-fd.so"),
        ),
        ("Version: 15.0.3", "Version: 13.0.4", ("change", "version", "13.0.4", "15.0")),
    ],
)
def test_what_a_file_daemon_lacks_is_found(old, new, finding):
    assert old in CLIENT
    status = parse_client(CLIENT.replace(old, new))
    assert said(compare_client(SITE, "a-fd", status)) == [finding]


def test_daemons_that_cannot_be_reached_are_found():
    [client] = compare_client(SITE, "a-fd", parse_client(UNREACHED))
    [storage] = compare_storage(SITE, "sd", "changer", parse_storage(""))
    assert (client.severity, client.found) == ("change", "no connection from the Director")
    assert (storage.severity, storage.found) == ("change", "no connection from the Director")
    assert str(client).startswith("change: File Daemon of Client a-fd: ")
    assert "\n" not in str(client)


def test_devices_are_counted_where_the_directors_storage_points_to():
    status = parse_storage(STORAGE)
    assert status.changers == {"changer": 4}
    found = said(compare_storage(SITE, "sd", "changer", status))
    assert found == [("hint", "Devices of changer", "4", "5 or more")]
    few = parse_storage(STORAGE.replace('   "drive-1" (/volumes)\n   "drive-2" (/volumes)\n', ""))
    assert said(compare_storage(SITE, "sd", "changer", few)) == [
        ("change", "Devices of changer", "2", "3 or more")
    ]
    assert said(compare_storage(SITE, "sd", "alone", status)) == [
        ("change", "Devices of alone", "1", "3 or more")
    ]
    assert said(compare_storage(SITE, "sd", "none", status)) == [("change", "Device", "", "none")]


def options(letters):
    """Return what a Director shows of a Job whose FileSet has these Options, that is wrong else."""
    return parse_director(
        f"""\
d Version: 15.0.3 (25 March 2025)
show jobs
Job: name=forebay-home-0 JobType=66 level=Full Priority=10 Enabled=0
     MaxJobs=1 NumJobs=0 Resched=0 Times=0 Interval=1,800 Spool=0 WritePartAfterJob=1
     Accurate=0
  --> FileSet: name=fs IgnoreFileSetChanges=1
      O {letters}
      N
      P forebay:dataset=home:shard=0/3
      P other:x
      N
"""
    )


@pytest.mark.parametrize(
    ("letters", "found"),
    [
        ("M", ["Signature = MD5"]),
        ("S", ["Signature = SHA1"]),
        ("S2", ["Signature = SHA256"]),
        ("S3Zo", ["Signature = SHA512", "Compression"]),
        ("MZ6", ["Signature = MD5", "Compression"]),
        ("S5", []),
        ("S6", []),
        ("S7sCmcs:", []),
        ("CmMcs:VZS:", []),
        ("", []),
    ],
)
def test_what_costs_cpu_in_the_file_sets_options_is_a_hint(letters, found):
    findings = compare(SITE, options(letters))
    assert [f.found for f in findings if f.directive == "Options"] == found


def test_a_disabled_job_and_a_file_set_that_ignores_changes_are_found():
    found = {(f.resource, f.directive) for f in compare(SITE, options("M"))}
    assert ("Job forebay-home-0", "Enabled") in found
    assert ("FileSet fs", "Ignore FileSet Changes") in found
    assert ("FileSet fs", "Plugin") in found
    assert ("Job forebay-home-0", "Type") not in found
