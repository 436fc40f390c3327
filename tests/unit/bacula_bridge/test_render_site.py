"""A site's configuration as text."""

import pytest

from bacula_bridge import render_site
from bacula_bridge.errors import BadValue
from bacula_bridge.render_site import Site, SiteDataset, SiteMover
from shards.ledger_schema import HsmPolicy

A = SiteMover("a", "a-fd", "/run/forebay/bridge.sock")
B = SiteMover("b", "b-fd", "/run/b/bridge.sock", ("--config", "/a b.toml", "--mover", "b"))
DATASET = SiteDataset("home", (A, B, A), "sd1", "full", "Nightly", HsmPolicy.STUB)
SITE = Site(
    movers=(A, B),
    datasets=(DATASET, SiteDataset("work", (B,), "sd2", "full")),
    messages="Standard",
    restore_job="forebay-restore",
    program="/opt/for ebay/bin/forebay",
)


def test_a_datasets_resources_are_as_published():
    text = render_site.dataset_config(SITE, DATASET)
    assert text.startswith(
        """\
JobDefs {
  Name = "forebay-home"
  Type = Backup
  Level = Incremental
  Client = "a-fd"
  FileSet = "forebay-home-0"
  Storage = "sd1"
  Pool = "full"
  Messages = "Standard"
  Prefer Mounted Volumes = no
  Spool Attributes = yes
  Accurate = no
  Allow Duplicate Jobs = yes
  Allow Incomplete Jobs = no
  Maximum Concurrent Jobs = 576
  Schedule = "Nightly"
}

FileSet {
  Name = "forebay-home-0"
  Include {
    Options { }
    Plugin = "forebay:dataset=home:shard=0/3:hsm=stub"
  }
}

Job {
  Name = "forebay-home-0"
  JobDefs = "forebay-home"
  FileSet = "forebay-home-0"
  Client = "a-fd"
  RunScript {
    RunsWhen = Before
    RunsOnClient = yes
    FailJobOnError = yes
    Command = "\\"/opt/for ebay/bin/forebay\\" hook before --jobid %i --job %n --level \\"%l\\""
  }
  RunScript {
    RunsWhen = After
    RunsOnClient = yes
    RunsOnFailure = yes
    FailJobOnError = no
    Command = "\\"/opt/for ebay/bin/forebay\\" hook after --jobid %i --job %n --status \\"%e\\""
  }
}
"""
    )
    assert '--level \\"%l\\" --config \\"/a b.toml\\" --mover b"\n' in text
    clients = [line.strip() for line in text.splitlines() if line.startswith("  Client")]
    assert clients[1:] == ['Client = "a-fd"', 'Client = "b-fd"', 'Client = "a-fd"']


def test_a_dataset_without_a_schedule_has_none():
    assert "Schedule" not in render_site.dataset_config(SITE, SITE.datasets[1])


@pytest.mark.parametrize("program", ["forebay", '/a"b', "/a\\b", "/a%nb", "/a$b", "/a\nb", "/a'b"])
def test_a_program_that_bacula_would_read_otherwise_is_refused(program):
    with pytest.raises(BadValue):
        render_site.hook_commands(program)
    if program.startswith("/"):
        with pytest.raises(BadValue):
            render_site.hook_commands("/p", ("--config", program))


def test_hints_are_comments_and_resources_only_if_asked():
    common = render_site.common_config(SITE, pools=False, clients=False)
    assert "Pool {" not in common
    assert "\nClient {" not in common
    assert '#   Name = "b-fd"' in common
    assert common.count("# Autochanger {") == 2
    asked = render_site.common_config(SITE, pools=True, clients=True)
    assert asked.count("\nClient {") == 2
    assert asked.count("Pool {") == 1
    for hint in (
        render_site.file_daemon_hint(SITE, SITE.movers[0], render_site.Path("/usr/lib/bacula")),
        render_site.storage_daemon_hint(SITE, "sd1"),
    ):
        assert all(line.startswith("#") for line in hint.splitlines())


def test_numbers_of_jobs_and_devices_are_those_of_all_datasets():
    assert (SITE.shards_of_client("a-fd"), SITE.shards_of_client("b-fd")) == (2, 2)
    assert (SITE.shards_of_storage("sd1"), SITE.shards_max) == (3, 3)
    assert render_site.storage_daemon_hint(SITE, "sd1").count("# Device {") == 3
    assert render_site.concurrent_jobs(1) == 20
    assert render_site.concurrent_jobs(100) == 216
    options = '#   Plugin Options = "forebay:socket=/run/forebay/bridge.sock"'
    fd = render_site.file_daemon_hint(SITE, SITE.movers[0], render_site.Path("/usr/lib/bacula"))
    assert options in fd
