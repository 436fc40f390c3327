"""`forebay init`: the configuration that it writes, what it finds on a machine.

Covers: every key is there and says its default, it loads, what is found is filled in, files are not
overwritten, passwords stay where they are.
Does not cover: the systemd units (test_systemd_units).
"""

import re
import stat
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.commands.init import ThereAlready, write_file
from cluster.machine import Machine, look_at_machine, running_ray
from cluster.site_config import SiteConfig, check, load
from cluster.site_keys import ABOUT, TABLES
from cluster.site_template import CHANGE, table_of, template
from filesystems.mounted import MountedTree, parallel_trees
from filesystems.mountinfo import MountInfo

BARE = Machine("node-7.example.org", 16)
FULL = replace(
    BARE,
    trees=(
        MountedTree(b"/scratch", "lustre", b"mgs:/scratch", 4),
        MountedTree(b"/mnt/scratch", "ceph", b"mon:/", 0, "/mnt/scratch has not answered for 5 s"),
        MountedTree(b"/odd:name", "gpfs", b"odd", 1),
    ),
    bconsole=Path("/opt/bacula/bin/bconsole"),
    bconsole_config=Path("/opt/bacula/etc/bconsole.conf"),
    director="site-dir",
    director_address="dir.example.org",
    file_daemon="node-7-fd",
    file_daemon_config=Path("/etc/bacula/bacula-fd.conf"),
    plugin_folder="/usr/lib/bacula",
    ray_address="127.0.0.1:6379",
)
MARKER = "KeepMeSecret-7f3a"


def model_keys(model=SiteConfig, above=""):
    """Yield each key of the models by its dotted name, with its field."""
    for name, about in model.model_fields.items():
        inner = table_of(about)
        if inner is not None:
            yield from model_keys(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", about


def written_keys(text):
    """Yield the keys of a file by their dotted names, whether in comments, and their values."""
    table = ""
    for line in text.splitlines():
        if head := re.fullmatch(r"#?\[\[?([a-z]+)\]\]?", line):
            table = f"{head[1]}."
        elif key := re.fullmatch(r"(#?)([a-z_]+) = (.*)", line):
            yield f"{table}{key[2]}", bool(key[1]), tomllib.loads(f"value = {key[3]}")["value"]


@pytest.mark.parametrize("machine", [BARE, FULL], ids=["bare", "full"])
def test_every_key_is_there_once_for_each_table(machine):
    first = {}
    for key, is_comment, value in written_keys(template(machine).text):
        first.setdefault(key, (is_comment, value))
    assert set(first) == {key for key, _ in model_keys()}


@pytest.mark.parametrize("machine", [BARE, FULL], ids=["bare", "full"])
def test_defaults_in_comments_are_those_of_the_models(machine):
    fields = dict(model_keys())
    commented = {k: value for k, c, value in written_keys(template(machine).text) if c}
    defaults = {k: f.default for k, f in fields.items() if not f.is_required() and f.default}
    checked = 0
    for key, value in commented.items():
        if (default := defaults.get(key)) is not None:
            assert value == (str(default) if isinstance(default, Path) else default), key
            checked += 1
    assert checked >= 15


def test_every_key_says_what_it_is_for_and_what_it_accepts():
    assert set(ABOUT) == {key for key, _ in model_keys()}
    assert set(TABLES) == {name for name, f in SiteConfig.model_fields.items() if table_of(f)}
    text = template(BARE).text
    assert "Accepts text" not in text, "a key has no words for what it accepts"
    shards = text[: text.index("\nshards = ")].rsplit("\n\n", 1)[1]
    assert "Accepts 1 to\n# 256." in shards or "Accepts 1 to 256." in shards.replace("\n# ", " ")


@pytest.mark.parametrize("machine", [BARE, FULL], ids=["bare", "full"])
def test_it_loads_as_it_is_and_with_every_comment_taken_away(machine, tmp_path):
    text = template(machine).text
    path = tmp_path / "f.toml"
    path.write_text(text)
    assert load(path).mover[0].name == "node-7"
    whole = re.sub(r"^#([a-z_]+ = |\[)", r"\1", text, flags=re.MULTILINE)
    values = tomllib.loads(whole)
    values["coordinator"]["mover"] = "node-7"  # an example names another one
    site = check(values, "f")
    assert site.archive is not None
    assert site.grafana is not None


def test_what_was_found_is_filled_in():
    site = check(tomllib.loads(template(FULL).text), "f")
    assert str(site.state) == "/scratch/.forebay"
    assert site.ray.address == "127.0.0.1:6379"
    assert str(site.bacula.bconsole) == "/opt/bacula/bin/bconsole"
    assert site.bacula.catalog == "postgresql://forebay@dir.example.org/bacula"
    assert site.mover[0].client == "node-7-fd"
    assert [(d.name, str(d.root), d.shards) for d in site.dataset] == [
        ("scratch", "/scratch", 16),
        ("scratch-2", "/mnt/scratch", 16),
    ]
    text = template(FULL).text.replace("\n# ", " ")
    assert "Director site-dir at dir.example.org is in it." in text
    assert "lustre, 4 metadata targets." in text


def test_what_nobody_found_is_marked():
    made = template(BARE)
    assert made.open_keys == ("state", "bacula.catalog", "mover.client", "dataset.root")
    assert made.text.count(CHANGE) == 1 + len(made.open_keys)


@pytest.mark.parametrize("host", ["", "...", "a b/c", "x" * 200, "-näme-"])
def test_any_host_name_gives_a_mover(host):
    assert check(tomllib.loads(template(replace(BARE, host=host)).text), "f").mover


def test_bacula_s_files_are_read_without_their_passwords(tmp_path):
    console, daemon = tmp_path / "bconsole.conf", tmp_path / "bacula-fd.conf"
    console.write_text(
        f'# Director {{ Name = no }}\ndirector {{\n  name = "site-dir"  # ours\n'
        f'  Address = 10.1.2.3; DIRport = 9101\n  Password = "{MARKER}}}"\n}}\n'
    )
    daemon.write_text(
        f'Director {{ Name = site-dir; Password = "{MARKER}" }}\n'
        f'File Daemon {{\n  Name = "m1-fd"\n  Plugin Directory = /usr/lib/bacula\n}}\n'
    )
    machine = look_at_machine((tmp_path / "none", console), (daemon,))
    assert (machine.director, machine.director_address) == ("site-dir", "10.1.2.3")
    assert (machine.file_daemon, machine.plugin_folder) == ("m1-fd", "/usr/lib/bacula")
    text = template(machine).text
    assert MARKER not in text + repr(machine)
    assert str(console) in text


def test_a_running_ray_is_known_by_its_processes(tmp_path):
    def process(pid, *command):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "cmdline").write_bytes(b"\0".join(command) + b"\0")

    process(1, b"/usr/bin/redis-server", b"*:6379")
    process(2, b"vi", b"--gcs_server_port=1")
    (tmp_path / "3").mkdir()
    assert running_ray(tmp_path) == ""
    process(4, b"/x/raylet", b"--gcs-address=10.0.0.1:6379")
    assert running_ray(tmp_path) == "10.0.0.1:6379"
    process(5, b"/x/gcs_server", b"--gcs_server_port=7000")
    assert running_ray(tmp_path) == "127.0.0.1:7000"


def test_parallel_filesystems_are_found_once_each(tmp_path):
    here = bytes(tmp_path)

    def mount(type_name, source, point=here):
        return MountInfo(b"/", point, type_name, source, ())

    mounts = [
        mount("ext4", b"/dev/sda"),
        mount("beegfs_nodev", b"beegfs_nodev"),
        mount("beegfs_nodev", b"beegfs_nodev", b"/elsewhere"),
        mount("gpfs", b"gone", b"/no/such/place"),
    ]
    one, gone = parallel_trees(mounts)
    assert (one.root, one.type_name, one.targets, one.trouble) == (here, "beegfs_nodev", 1, "")
    assert gone.targets == 0
    assert "/no/such/place" in gone.trouble


def test_a_file_is_written_whole_for_its_group_and_never_over_another(tmp_path):
    path = tmp_path / "etc" / "forebay.toml"
    runner = CliRunner()
    done = runner.invoke(app, ["init", "--out", str(path)])
    assert (done.exit_code, done.stdout) == (0, f"{path}\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    path.write_text("mine")
    assert isinstance(runner.invoke(app, ["init", "--out", str(path)]).exception, ThereAlready)
    with pytest.raises(ThereAlready):
        write_file(path, "other", force=False)
    assert path.read_text() == "mine"
    assert runner.invoke(app, ["init", "--out", str(path), "--force"]).exit_code == 0
    assert load(path)
    assert [each.name for each in path.parent.iterdir()] == ["forebay.toml"]


def test_standard_output_has_the_file_alone(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["init", "--out", "-"])
    assert check(tomllib.loads(done.stdout), "f")
    assert "then `forebay config check`" in done.stderr
    assert not list(tmp_path.iterdir())
