"""The systemd units that `forebay init --systemd` writes.

Covers: systemd takes them, what they may write, the token, ports that are said and used, who may
stop what.
Does not cover: their commands in a running cluster (tests/system/test_units.py).
"""

import re
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.cli import app
from cluster.commands.init import ThereAlready
from cluster.site_config import check, shown
from cluster.systemd_units import NAMES, UnitsUnfit, units

VALUES = {
    "state": "/shared/forebay",
    "bacula": {"catalog": "/c"},
    "ray": {"address": "head.example.org:6400", "dashboard": "http://127.0.0.1:8300"},
    "mover": [{"name": "m-1", "client": "a"}, {"name": "m-2", "client": "b"}],
    "dataset": [{"name": "home", "root": "/home", "shards": 2}],
}
CONFIG = Path("/etc/forebay/forebay.toml")


def made(user="forebay", **changes):
    return units(check({**VALUES, **changes}, "f"), CONFIG, user)


def directives(text, name):
    return [line.partition("=")[2] for line in text.splitlines() if line.startswith(f"{name}=")]


def test_systemd_takes_them(tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze (Debian: apt install systemd)")
    for name, text in made().items():
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *(tmp_path / name for name in NAMES)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_is_left_to_fill_in():
    for name, text in made().items():
        assert not re.search(r"@[A-Z_]+@", text), name


def test_they_may_read_everything_and_write_only_forebay_s_own():
    for text in made().values():
        assert directives(text, "User") == ["forebay"]
        assert directives(text, "CapabilityBoundingSet") == ["CAP_DAC_READ_SEARCH"]
        assert directives(text, "AmbientCapabilities") == ["CAP_DAC_READ_SEARCH"]
        assert directives(text, "ProtectSystem") == ["strict"]
        assert directives(text, "ReadWritePaths") == ["-/shared/forebay"]
        assert directives(text, "NoNewPrivileges") == ["yes"]
        assert directives(text, "UMask") == ["0077"]
        assert directives(text, "RuntimeDirectoryMode") == ["0700"]
        assert directives(text, "RuntimeDirectory") == ["forebay"]
        assert directives(text, "StateDirectory") == ["forebay"]


def test_a_snapshot_needs_its_tree_and_a_ledger_elsewhere_its_folder():
    dataset = {**VALUES["dataset"][0], "snapshot": True}
    text = made(dataset=[dataset], coordinator={"ledger": "/srv/ledger"})[NAMES[0]]
    assert directives(text, "ReadWritePaths") == ["-/shared/forebay -/home -/srv/ledger"]
    assert "RAY_gcs_storage_path=/srv/ledger/ray-gcs" in text


def test_ray_asks_everybody_for_the_token_and_keeps_names():
    head, worker = made()[NAMES[0]], made()[NAMES[1]]
    for text in (head, worker):
        assert "RAY_AUTH_MODE=token" in directives(text, "Environment")
        assert "RAY_AUTH_TOKEN_PATH=/etc/forebay/ray.token" in directives(text, "Environment")
    assert "RAY_gcs_storage=rocksdb" in directives(head, "Environment")
    (command,) = directives(head, "ExecStart")
    assert "--labels=forebay-mover=m-1 --port=6400 " in command
    assert "--dashboard-host=127.0.0.1 --dashboard-port=8300" in command
    (command,) = directives(made(ray={"dashboard": "http://head:8265"})[NAMES[0]], "ExecStart")
    assert "--dashboard-host=head --dashboard-port=8265" in command
    (command,) = directives(worker, "ExecStart")
    assert "--address=head.example.org:6400" in command
    assert "--labels=forebay-mover=%i " in command


def test_all_ports_are_fixed_and_said():
    text = made()[NAMES[0]]
    (command,) = directives(text, "ExecStart")
    used = {int(port) for port in re.findall(r"-port=(\d+)", command)}
    said: set[int] = set()
    for line in text.split("[Unit]")[0].splitlines():
        said |= {int(each) for each in re.findall(r"\b\d{4,5}\b", line)}
        for first, last in re.findall(r"(\d{4,5}) to (\d{4,5})", line):
            said |= set(range(int(first), int(last) + 1))
    assert used <= said, used - said
    (worker,) = directives(made()[NAMES[1]], "ExecStart")
    assert {int(port) for port in re.findall(r"-port=(\d+)", worker)} <= used


def test_the_service_outlives_what_looks_after_it():
    service, stop = made()["forebay-serve.service"], made()["forebay-stop.service"]
    assert not directives(service, "ExecStop")
    assert directives(service, "RestartPreventExitStatus") == ["2"]
    assert directives(stop, "Conflicts") == ["forebay-serve.service"]
    assert directives(stop, "ExecStart")[0].endswith(f"/forebay stop --config {CONFIG}")


def test_a_head_on_loopback_is_named_to_the_other_nodes_by_its_host():
    (command,) = directives(made(ray={"address": "127.0.0.1:6379"})[NAMES[1]], "ExecStart")
    assert "--address=127." not in command
    assert ":6379 " in command


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"user": "root; rm"}, "--user"),
        ({"state": "/with blank"}, "state"),
        ({"state": "/with%percent"}, "state"),
        ({"dataset": [{**VALUES["dataset"][0], "root": "/a b"}]}, "dataset.root"),
        ({"runtime": "/tmp/forebay"}, "runtime"),
        ({"ray": {"token_file": "/a b"}}, "ray.token_file"),
    ],
)
def test_what_a_unit_cannot_say_is_refused_by_key(changes, key):
    with pytest.raises(UnitsUnfit, match=f"^{key} does not fit"):
        made(**changes)


def test_units_without_a_token_are_refused():
    config = check(VALUES, "f")
    config = config.model_copy(update={"ray": config.ray.model_copy(update={"token_file": None})})
    with pytest.raises(UnitsUnfit, match="let nobody in"):
        units(config, CONFIG, "forebay")


def test_they_are_written_for_the_configuration_there_is_and_not_over_others(tmp_path):
    config = tmp_path / "f.toml"
    config.write_text(shown(check(VALUES, "f").model_dump(mode="json")))
    command = ["init", "--config", str(config), "--systemd", str(tmp_path / "units")]
    done = CliRunner().invoke(app, command)
    assert done.stdout.split() == [str(tmp_path / "units" / name) for name in NAMES]
    assert stat.S_IMODE((tmp_path / "units" / NAMES[0]).stat().st_mode) == 0o644
    assert f"--config {config}" in (tmp_path / "units" / "forebay-serve.service").read_text()
    (tmp_path / "units" / NAMES[0]).unlink()
    assert isinstance(CliRunner().invoke(app, command).exception, ThereAlready)
    assert not (tmp_path / "units" / NAMES[0]).exists()
    assert CliRunner().invoke(app, [*command, "--force"]).exit_code == 0
