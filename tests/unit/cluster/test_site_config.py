"""A site's configuration file.

Covers: what is refused and the sentence, defaults, secrets, which mover has which shard, what
`config show` prints.
Does not cover: whether nodes and Bacula are as it says (preflight, bacula check).
"""

import os
import tomllib
from pathlib import Path

import pytest

from cluster.settings import Settings
from cluster.site_config import (
    ConfigurationWrong,
    SecretUnsafe,
    check,
    configured_path,
    load,
    read_secret,
    secret_files,
    shown,
)

GOOD = {
    "state": "/shared/state",
    "bacula": {"catalog": "postgresql://bacula@db/bacula"},
    "mover": [{"name": name, "client": f"{name}-fd"} for name in ("a", "b", "c")],
    "dataset": [{"name": "home", "root": "/home", "shards": 7}],
}


def with_key(key, value):
    """Return good values with one at a dotted place changed."""
    values = {name: dict(v) if isinstance(v, dict) else v for name, v in GOOD.items()}
    table, _, name = key.rpartition(".")
    if table in ("mover", "dataset"):
        values[table] = [{**values[table][0], name: value}, *values[table][1:]]
    elif table:
        values[table] = {**values.get(table, {}), name: value}
    else:
        values[key] = value
    return values


def test_defaults_and_shards_dealt_to_movers():
    site = check(GOOD, "f")
    assert site.coordinator_mover == "a"
    assert site.socket_of("b") == Path("/run/forebay/bridge.sock")
    movers = [site.mover_of(site.dataset[0], shard).name for shard in range(7)]
    assert movers == ["a", "b", "c", "a", "b", "c", "a"]
    assert site.bacula.pool == "forebay"


def test_the_runtime_folder_may_be_each_movers_own():
    site = check(with_key("runtime", "/run/{mover}"), "f")
    assert site.socket_of("b") == Path("/run/b/bridge.sock")


def test_a_dataset_may_have_movers_of_its_own():
    site = check(with_key("dataset.movers", ["c", "a"]), "f")
    assert [m.name for m in site.movers_of(site.dataset[0])] == ["a", "c"]
    assert site.walker_movers == ("a", "c")


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("state", "relative", "state: an absolute path is needed"),
        ("state", "/a:b", "state: no colons"),
        ("what", 1, "what: there is no such key"),
        ("bacula.what", 1, "bacula.what: there is no such key"),
        ("bacula.catalog", "mysql://x", "bacula.catalog: postgresql://USER@HOST/DATABASE"),
        ("bacula.catalog", "postgresql://u:secret@h/d", "no password goes here"),
        ("bacula.catalog", "postgresql://u@h/d?password=secret", "no password goes here"),
        ("bacula.catalog", "postgresql://u@h/d?sslmode=x&PASS%57ord=secret", "no password goes"),
        ("ray.address", "head", "ray.address: "),
        ("ray.dashboard", "head:8265", "ray.dashboard: http://HOST:PORT"),
        ("dataset.shards", 0, "dataset[1].shards: input should be greater than or equal to 1"),
        ("dataset.shards", 257, "dataset[1].shards: input should be less than or equal to 256"),
        ("dataset.name", "a b", "dataset[1].name: "),
        ("dataset.hsm", "never", "dataset[1].hsm: input should be 'skip', 'stub' or 'recall'"),
        ("dataset.movers", ["d"], "dataset home: movers: there is no mover d; there are a, b, c"),
        ("mover.name", "b", "mover b: each name may be there once"),
        ("mover.name", "a b", "mover[1].name: "),
        ("coordinator.mover", "x", "coordinator.mover: there is no mover x"),
        ("mover", [], "at least one [[dataset]]"),
        ("log.format", "xml", "log.format: input should be 'text' or 'json', not 'xml'"),
        ("limits.run_idle_s", 0, "limits.run_idle_s: "),
    ],
)
def test_what_cannot_be_is_refused_by_file_and_key(key, value, sentence):
    with pytest.raises(ConfigurationWrong) as refused:
        check(with_key(key, value), "/etc/f.toml")
    assert str(refused.value).startswith("/etc/f.toml: ")
    assert sentence in str(refused.value)
    assert "secret" not in str(refused.value)
    assert refused.value.exit_code == 2


def test_datasets_without_a_mover_in_common_are_refused():
    values = {
        **GOOD,
        "dataset": [
            {"name": "one", "root": "/1", "shards": 1, "movers": ["a"]},
            {"name": "two", "root": "/2", "shards": 1, "movers": ["b"]},
        ],
    }
    with pytest.raises(ConfigurationWrong, match="no mover reads all datasets"):
        check(values, "f")


def test_a_coordinator_that_does_not_see_a_dataset_is_refused():
    values = with_key("dataset.movers", ["b", "c"])
    with pytest.raises(ConfigurationWrong, match=r"coordinator\.mover: a does not read all"):
        check(values, "f")


def test_a_file_that_is_none(tmp_path):
    path = tmp_path / "f.toml"
    with pytest.raises(ConfigurationWrong, match="cannot be read: No such file"):
        load(path)
    path.write_text("state = ")
    with pytest.raises(ConfigurationWrong, match="it is not TOML"):
        load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ConfigurationWrong, match="it is not TOML"):
        load(path)


def test_what_is_shown_says_the_same_again():
    site = check(with_key("dataset.latency_target_ms", 2.5), "f")
    text = shown(site.model_dump(mode="json"))
    assert check(tomllib.loads(text), "f") == site


def test_secrets_are_files_that_nobody_else_may_read(tmp_path):
    path = tmp_path / "token"
    path.write_text("word\n")
    path.chmod(0o600)
    assert read_secret(path) == "word"
    path.chmod(0o640)
    with pytest.raises(SecretUnsafe, match="its mode 0640 lets others in"):
        read_secret(path)
    with pytest.raises(SecretUnsafe, match="cannot be read"):
        read_secret(tmp_path / "none")
    empty = tmp_path / "empty"
    empty.touch(0o600)
    with pytest.raises(SecretUnsafe, match="one line"):
        read_secret(empty)


def test_all_files_with_secrets_are_known():
    values = {
        **GOOD,
        "bacula": {**GOOD["bacula"], "catalog_password_file": "/p"},
        "archive": {"url": "s3://b", "options_file": "/o"},
        "grafana": {"url": "http://g:3000", "token_file": "/t"},
    }
    found = secret_files(check(values, "f"))
    assert list(map(str, found)) == ["/etc/forebay/ray.token", "/p", "/o", "/t"]


def test_which_file_holds(tmp_path, monkeypatch):
    monkeypatch.delenv("FOREBAY_CONFIG", raising=False)
    assert configured_path(tmp_path / "a") == tmp_path / "a"
    monkeypatch.setenv("FOREBAY_CONFIG", str(tmp_path / "b"))
    assert configured_path() == tmp_path / "b"


def test_commands_take_the_site_unless_a_home_is_named(tmp_path, monkeypatch):
    path = tmp_path / "f.toml"
    path.write_text(shown(check(GOOD, "f").model_dump(mode="json")))
    monkeypatch.setenv("FOREBAY_CONFIG", str(path))
    monkeypatch.delenv("FOREBAY_HOME", raising=False)
    assert Settings.from_environment().state.base == Path("/shared/state")
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path))
    assert Settings.from_environment().site is None
    assert os.path.isabs(Settings.from_environment().state.base)
