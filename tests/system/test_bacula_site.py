"""Bacula's side of a site, against a real Director: rendered, loaded, run, compared."""

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from bacula_bridge import console
from bacula_bridge.catalog import Catalog
from bacula_bridge.director import Director
from bacula_bridge.render import quote
from tests.support.lab_fixture import bacula_programs, make_lab, module_lab

__all__ = ["bacula_programs", "make_lab", "module_lab"]

pytestmark = pytest.mark.bacula

FOREBAY = Path(sys.executable).with_name("forebay")
SHARDS = 3
END_S = 120.0
HOOK = """\
#!/bin/sh
for argument; do printf '%s\\n' "$argument"; done > "{folder}/$2.$4"
"""


class Site:
    """A site whose two movers are two Clients of one lab."""

    def __init__(self, lab, folder):
        self.lab, self.folder = lab, folder
        self.file = folder / "for ebay.toml"
        self.out = folder / "out put"
        self.program = folder / "a folder" / "forebay"
        self.director = lab.base / "conf" / "dir.conf"
        self.original = self.director.read_text()
        self.program.parent.mkdir()
        self.program.write_text(HOOK.format(folder=folder))
        self.program.chmod(0o755)
        for name in ("bconsole", "bdirjson"):
            argv = [*lab.programs.console[:-1], str(Path(lab.programs.console[-1]).parent / name)]
            script = folder / name
            script.write_text(f'#!/bin/sh\nexec {" ".join(argv)} "$@"\n')
            script.chmod(0o755)
        self.configure()

    def configure(self, **keys):
        bacula = {
            "catalog": str(self.lab.catalog),
            "bconsole": str(self.folder / "bconsole"),
            "bconsole_config": str(self.lab.base / "conf" / "bconsole.conf"),
            "messages": "forebay",
            "schedule": "Nightly",
            **keys,
        }
        lines = [f"{key} = {json.dumps(value)}" for key, value in bacula.items()]
        self.file.write_text(f"""\
state = "/srv/state"
runtime = "/run/forebay-{{mover}}"
[bacula]
{chr(10).join(lines)}
[[mover]]
name = "m1"
client = "forebay-fd"
[[mover]]
name = "m2"
client = "second-fd"
[[dataset]]
name = "home"
root = "/srv/home"
shards = {SHARDS}
""")

    def command(self, *arguments):
        return subprocess.run(
            [str(FOREBAY), "bacula", *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=120,
        )

    def render(self):
        arguments = ("--config", self.file, "--program", self.program, "--out", self.out)
        done = self.command("config", *arguments, "--json")
        assert done.returncode == 0, done
        return [Path(path) for path in json.loads(done.stdout)["files"]]

    def text(self, change=lambda text: text):
        """Return the lab's configuration with what was rendered; the lab has pool and restore."""
        port = next(line for line in self.original.splitlines() if "FDPort" in line)
        blocks = self.original.split("Client {", 1)[1].split("}", 1)[0]
        second = "Client {" + blocks.replace("forebay-fd", "second-fd") + "}\n"
        assert port in second
        schedule = "Schedule {\n  Name = Nightly\n  Run = Level=Full 1st sun at 1:05\n}\n"
        rendered = (self.out / "director-home.conf").read_text()
        return change(self.original + second + schedule + rendered)

    def load(self, change=lambda text: text):
        """Give the Director this configuration."""
        text = self.text(change)
        draft = self.folder / "draft.conf"
        draft.write_text(text)
        argv = [*self.lab.programs.director, "-t", "-c", str(draft)]
        assert console.check_configuration(argv) == ""
        self.director.write_text(text)
        assert console.reload_refusal(self.lab.console("reload")) == ""

    def check(self, *arguments, code):
        common = ("--config", self.file, "--program", self.program)
        done = self.command(
            "check", *common, "--director-config", self.director, "--json", *arguments
        )
        assert done.returncode == code, done
        report = json.loads(done.stdout)
        return {
            (each["severity"], each["resource"], each["directive"]): each
            for each in report["findings"]
        }


@pytest.fixture
def site(module_lab, tmp_path):
    site = Site(module_lab, tmp_path)
    site.render()
    yield site
    site.director.write_text(site.original)
    module_lab.console("reload")


def test_what_is_rendered_is_what_a_director_takes_as_a_whole(site):
    """With the Director's own parser; the files include each other."""
    files = site.render()
    assert {path.name for path in files} == {
        "director.conf",
        "director-home.conf",
        "file-daemon-m1.conf",
        "file-daemon-m2.conf",
        "storage-daemon-forebay-sd.conf",
    }
    for path in files:
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert {path.name for path in site.out.iterdir()} == {path.name for path in files}
    done = site.command(
        *("config", "--config", site.file, "--program", site.program, "--out", site.out),
        *("--clients", "--catalog-resource", "forebay"),
    )
    assert done.returncode == 0, done
    assert f'@"{site.out}/director.conf"' in done.stderr
    head = site.original.split("Client {", 1)[0]
    rest = site.original.split("Autochanger {", 1)[1].split("Pool {", 1)[0]
    schedule = "Schedule {\n  Name = Nightly\n  Run = Level=Full 1st sun at 1:05\n}\n"
    text = head + "Autochanger {" + rest + schedule + f'@"{site.out}/director.conf"\n'
    whole = site.folder / "whole.conf"
    whole.write_text(text)
    argv = [*site.lab.programs.director, "-t", "-c", str(whole)]
    assert console.check_configuration(argv) == ""
    (site.out / "director-home.conf").write_text("Job { Nonsense = yes }\n")
    assert "Nonsense" in console.check_configuration(argv)


def test_the_hooks_run_on_the_client_with_what_they_need(site):
    """The job fails, since nobody serves its stream; both hooks are run all the same."""
    site.load()
    director = Director(site.lab.console, Catalog(site.lab.catalog))
    [jobid] = director.run_jobs(["forebay-home-1"], level="Full")
    [row] = director.follow([jobid], timeout_s=END_S)
    assert not row.good
    before = (site.folder / f"before.{jobid}").read_text().splitlines()
    after = (site.folder / f"after.{jobid}").read_text().splitlines()
    who = ["--jobid", str(jobid), "--job", "forebay-home-1"]
    where = ["--config", str(site.file), "--mover", "m2"]
    assert before == ["hook", "before", *who, "--level", "Full", *where]
    assert after[:7] == ["hook", "after", *who, "--status"]
    assert "rror" in after[7]
    assert after[8:] == where


def test_a_job_whose_first_hook_fails_does_not_run(site):
    site.program.write_text("#!/bin/sh\necho the service is down\nexit 1\n")
    site.load()
    director = Director(site.lab.console, Catalog(site.lab.catalog))
    [row] = director.follow(director.run_jobs(["forebay-home-0"]), timeout_s=END_S)
    assert row.status in "fE"
    assert "the service is down" in director.job_log(row.job_id)


def test_a_director_that_has_what_was_rendered_is_as_forebay_needs_it(site):
    site.load()
    assert site.check(code=0) == {}


def test_each_wrong_resource_is_named_with_its_directive(site):
    def spoil(text):
        first, *jobs = text.split('Job {\n  Name = "forebay-home-')
        jobs[0] = jobs[0].replace('"forebay-home"\n', '"forebay-home"\n  Accurate = yes\n', 1)
        jobs[1] = jobs[1].replace('"second-fd"', '"forebay-fd"', 1)
        jobs[2] = jobs[2].split("\n}\n", 1)[1]
        text = 'Job {\n  Name = "forebay-home-'.join([first, *jobs[:2]]) + jobs[2]
        text = text.replace("shard=1/3", "shard=1/4")
        text = text.replace("Prefer Mounted Volumes = no", "Prefer Mounted Volumes = yes")
        text = text.replace("Spool Attributes = yes", "Spool Attributes = no")
        text = text.replace("Allow Incomplete Jobs = no", "")
        text = text.replace("Options { }\n    Plugin", "Options { Signature = MD5 }\n    Plugin")
        text = text.replace("Maximum Volume Jobs = 1", "Maximum Volume Jobs = 5")
        text = text.replace("RunsOnFailure = yes", "RunsOnFailure = no")
        text = text.replace("hook before", "hook behind")
        text = text.replace('Schedule = "Nightly"', "")
        for resource in ("Client", "Autochanger"):
            head, tail = text.split(resource + " {", 1)
            own, rest = tail.split("}", 1)
            lines = [line for line in own.splitlines() if "Maximum Concurrent" not in line]
            text = head + resource + " {" + "\n".join(lines) + "\n}" + rest
        head, tail = text.split('Name = "forebay-restore"', 1)
        return (
            head
            + 'Name = "forebay-restore"'
            + tail.replace("  Maximum Concurrent Jobs = 576\n", "", 1)
        )

    site.load(spoil)
    found = site.check(code=1)
    jobs = [f"Job forebay-home-{k}" for k in range(2)]
    assert set(found) == {
        ("change", "Job forebay-home-0", "Accurate"),
        ("change", "Job forebay-home-1", "Client"),
        ("change", "Job forebay-home-2", "Job"),
        ("change", "FileSet forebay-home-1", "Plugin"),
        *(("hint", f"FileSet forebay-home-{k}", "Options") for k in range(2)),
        *(("change", job, "Prefer Mounted Volumes") for job in jobs),
        *(("change", job, "Spool Attributes") for job in jobs),
        *(("change", job, "Allow Incomplete Jobs") for job in jobs),
        *(("change", job, "RunScript before") for job in jobs),
        *(("change", job, "RunScript after") for job in jobs),
        *(("hint", job, "Schedule") for job in jobs),
        ("hint", "Pool forebay", "Maximum Volume Jobs"),
        ("change", "Client forebay-fd", "Maximum Concurrent Jobs"),
        ("change", "Storage forebay-sd", "Maximum Concurrent Jobs"),
        ("change", "Job forebay-restore", "Maximum Concurrent Jobs"),
    }
    plugin = found[("change", "FileSet forebay-home-1", "Plugin")]
    assert plugin["found"] == "forebay:dataset=home:shard=1/4"
    assert plugin["wanted"] == "forebay:dataset=home:shard=1/3"
    limit = found[("change", "Storage forebay-sd", "Maximum Concurrent Jobs")]
    assert (limit["found"], limit["wanted"]) == ("1", "3 or more")


def test_hints_alone_have_an_exit_code_of_their_own(site):
    site.load(lambda text: text.replace("Maximum Volume Jobs = 1", "Maximum Volume Jobs = 5"))
    assert set(site.check(code=3)) == {("hint", "Pool forebay", "Maximum Volume Jobs")}


def test_daemons_that_lack_something_are_named(make_lab, tmp_path):
    """Too few devices, a File Daemon without the plugin; then daemons that are down."""
    site = Site(make_lab("bare", devices=2, plugin=tmp_path / "none.so"), tmp_path)
    site.file.write_text(site.file.read_text().replace(f"shards = {SHARDS}", "shards = 12"))
    site.render()
    site.load()
    assert set(site.check(code=1)) == {
        ("change", "File Daemon of Client forebay-fd", "Plugin Directory"),
        ("change", "File Daemon of Client second-fd", "Plugin Directory"),
        ("change", "Storage Daemon of Storage forebay-sd", "Devices of forebay-changer"),
    }
    site.lab.catalog.rename(site.folder / "moved.db")
    found = site.check(code=1)
    assert ("change", f"Catalog {site.lab.catalog}", "catalog") in found

    site.lab.down()
    done = site.command("check", "--config", site.file)
    assert done.returncode == 1
    [line] = done.stderr.strip().splitlines()
    assert "start bacula-dir" in line


def test_what_cannot_be_asked_is_told_in_a_sentence(site):
    site.configure(bconsole="/nonexistent/bconsole")
    done = site.command("check", "--config", site.file)
    assert (done.returncode, len(done.stderr.strip().splitlines())) == (1, 1)
    assert "/nonexistent/bconsole" in done.stderr

    site.configure()
    site.load()
    done = site.command(
        *("check", "--config", site.file, "--program", site.program),
        *("--director-config", site.folder / "none.conf"),
    )
    assert done.returncode == 0, done
    assert "not looked at: Spool Attributes" in done.stderr

    for arguments in (
        ("config", "--config", site.file, "--dataset", "nope"),
        ("config", "--config", site.file, "--program", "relative"),
        ("config", "--config", site.folder / "none.toml"),
    ):
        done = site.command(*arguments)
        assert (done.returncode, len(done.stderr.strip().splitlines())) == (2, 1), done


def test_the_plugin_goes_where_the_file_daemon_looks_for_it(site):
    folder = site.folder / "plug ins"
    folder.mkdir()
    fd = site.folder / "fd.conf"
    fd.write_text(
        "FileDaemon {\n  # Plugin Directory = /wrong\n"
        f"  pluginDirectory={quote(str(folder))}\n}}\n"
    )
    plugin = folder / "forebay-fd.so"
    dry = site.command("install-plugin", "--fd-config", fd, "--dry-run")
    assert (dry.returncode, plugin.exists()) == (0, False)

    plugin.write_bytes(b"an old one")
    with open(plugin, "rb") as old:
        done = site.command("install-plugin", "--fd-config", fd)
        assert done.returncode == 0, done
        assert "restart bacula-fd" in done.stderr
        assert old.read() == b"an old one"  # a File Daemon that has it loaded keeps it
    inode = os.stat(plugin).st_ino
    again = site.command("install-plugin", "--fd-config", fd, "--json")
    assert json.loads(again.stdout)["changed"] is False
    assert os.stat(plugin).st_ino == inode
    assert [path.name for path in folder.iterdir()] == ["forebay-fd.so"]
    shutil.rmtree(folder)
    assert site.command("install-plugin", "--fd-config", fd).returncode == 1
