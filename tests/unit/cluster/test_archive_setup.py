"""Which state directory and archive a command means; options that nobody else may read."""

import json

import pytest

from cluster.archive.errors import ArchiveUrlWrong, NoArchive
from cluster.archive.setup import find_setup, read_options
from cluster.archive.store import ArchiveStore
from cluster.site_config import SecretUnsafe

SITE = """
state = "/shared/forebay"
[coordinator]
ledger = "/local/forebay"
[bacula]
catalog = "/var/lib/bacula/bacula.db"
[archive]
url = "s3://backups/site"
options_file = "/etc/forebay/s3.json"
keep_days = 30
[[mover]]
name = "m1"
client = "m1-fd"
[[dataset]]
name = "d"
root = "/data"
shards = 2
"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    monkeypatch.delenv("FOREBAY_CONFIG", raising=False)
    monkeypatch.delenv("FOREBAY_HOME", raising=False)
    path = tmp_path / "forebay.toml"
    path.write_text(SITE)
    return path


def test_the_sites_file_says_all_of_it(site, monkeypatch):
    monkeypatch.setenv("FOREBAY_HOME", "/home/elsewhere")
    setup = find_setup(site)
    assert (setup.url, setup.keep_days) == ("s3://backups/site", 30)
    assert str(setup.options_file) == "/etc/forebay/s3.json"
    assert str(setup.state.base) == "/shared/forebay"
    assert str(setup.state.ledger) == "/local/forebay/ledger.sqlite"
    monkeypatch.setenv("FOREBAY_CONFIG", str(site))
    assert find_setup() == setup


def test_without_a_file_the_home_and_the_url_are_enough(site, monkeypatch, tmp_path):
    monkeypatch.setenv("FOREBAY_HOME", str(tmp_path))
    setup = find_setup(url="archive")
    assert setup.url.startswith("file:///")
    assert setup.url.endswith("/archive")
    assert setup.state.base == tmp_path / "state"
    assert setup.keep_days is None
    assert find_setup(url="memory://x").store().url == "memory://x"
    with pytest.raises(NoArchive, match="--url"):
        find_setup().store()


def test_a_url_on_the_command_line_goes_before_the_files(site, tmp_path):
    setup = find_setup(site, "file:///elsewhere")
    assert (setup.url, setup.options_file, setup.keep_days) == ("file:///elsewhere", None, 30)
    assert find_setup(site, None, tmp_path).options_file == tmp_path


def test_a_password_in_a_url_is_refused_and_not_repeated(site):
    with pytest.raises(ArchiveUrlWrong) as caught:
        find_setup(site, "ftp://me:secret@host/x")
    assert "secret" not in str(caught.value)
    assert "ftp://host/x" in str(caught.value)


@pytest.mark.parametrize("content", ["", "[]", '{"key": "hidden"', "hidden"])
def test_options_that_are_no_object_are_refused_and_not_repeated(tmp_path, content):
    path = tmp_path / "options"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(SecretUnsafe, match="one JSON object") as caught:
        read_options(path)
    assert "hidden" not in str(caught.value)


def test_options_may_have_several_lines_but_no_readers(tmp_path):
    path = tmp_path / "options"
    path.write_text(json.dumps({"key": "a", "more": {"b": 1}}, indent=4))
    path.chmod(0o600)
    assert read_options(path) == {"key": "a", "more": {"b": 1}}
    path.chmod(0o604)
    with pytest.raises(SecretUnsafe, match="0604"):
        read_options(path)
    with pytest.raises(SecretUnsafe, match="cannot be read"):
        read_options(tmp_path / "none")
    path.chmod(0o600)
    path.write_text(" " * (1 << 20))
    with pytest.raises(SecretUnsafe, match="more than"):
        read_options(path)


def test_values_of_options_are_not_repeated_in_messages():
    store = ArchiveStore("memory://x")
    store._secrets = ["hidden-key"]
    assert store._clean(ValueError("what is hidden-key?")) == "what is ***?"
